"""Text runs: runs of a text tower or decoder after the forward, to generate, rank or match texts.

Models report each run to a callback, which counts the generation cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from madtp_cli.execution.block_trace import BlockTrace


@dataclass(frozen=True)
class TextRun:
    """One run. Its texts attend to the memory: images or questions that were encoded before.

    Attributes:
        samples: Numbers of the samples of the memory, in the order in which the model received them.
        texts: Number of texts of each sample; those of the first sample come first.
        blocks: Token counts of each text in each block.
        read_out: Number of tokens of all texts that go through the head.
        cached: Number of tokens of each text that earlier runs left in the cache.
        new_keys: Whether the run computed the keys and values of the memory, once per sample.
    """

    samples: Sequence[int]
    texts: Sequence[int]
    blocks: Sequence[BlockTrace]
    read_out: int
    cached: int = 0
    new_keys: bool = True

    def unpruned(self) -> TextRun:
        """Return the same run without pruning of the texts."""
        entered = self.blocks[0].entered
        return replace(self, blocks=[BlockTrace(entered, entered)] * len(self.blocks))


#: A callback that receives each run.
OnTextRun = Callable[[TextRun], None]


def ignore_text_run(run: TextRun) -> None:
    """Do nothing. This is the callback of callers that do not count the generation cost."""
