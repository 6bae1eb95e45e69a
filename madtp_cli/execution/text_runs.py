"""Text runs: the runs of a text tower or decoder during generation, ranking and re-ranking, for counting their cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from madtp_cli.execution.block_pruner import BlockTrace


@dataclass(frozen=True)
class TextRun:
    """One text run: texts, or their next tokens, attend to a memory, that is to encoded images or questions.

    Attributes:
        samples: Indices of the samples of the memory, in the order of the model's inputs.
        texts: Number of texts that attend to each sample; the texts of a sample stand together.
        blocks: Tokens of each text through each block.
        read_out: Tokens of all texts that go through the head.
        before: Tokens of each text that are in the cache from earlier runs.
        keyed: Whether this run computed the keys and values of the memory, once for all texts of a sample.
    """

    samples: Sequence[int]
    texts: Sequence[int]
    blocks: Sequence[BlockTrace]
    read_out: int
    before: int = 0
    keyed: bool = True

    def unpruned(self) -> TextRun:
        """Return the same run without pruned text tokens."""
        entered = self.blocks[0].entered
        return replace(self, blocks=[BlockTrace(entered, entered)] * len(self.blocks))


#: Called with each text run.
OnTextRun = Callable[[TextRun], None]


def ignore_text_run(run: TextRun) -> None:
    """Do nothing: for runs whose cost is not counted."""
