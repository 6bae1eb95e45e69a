"""Runs of a text tower beside the forward, as answers are searched for; told to whoever counts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from madtp_cli.execution.block_pruner import BlockTrace


@dataclass(frozen=True)
class TextRun:
    """One run: texts, or what follows them, look at images or questions that were encoded before.

    Attributes:
        samples: Numbers of what is looked at, in the order in which the model got it.
        texts: How many texts look at each, those of the first before those of the second.
        blocks: Tokens of each text through each block.
        read_out: Tokens, of all texts, that go through the head.
        before: Tokens of each text that earlier runs left in the cache.
        keyed: Whether keys and values of what is looked at were computed here, once for all its texts.
    """

    samples: Sequence[int]
    texts: Sequence[int]
    blocks: Sequence[BlockTrace]
    read_out: int
    before: int = 0
    keyed: bool = True

    def unpruned(self) -> TextRun:
        """The same run if no token of a text went."""
        entered = self.blocks[0].entered
        return replace(self, blocks=[BlockTrace(entered, entered)] * len(self.blocks))


#: Called with each run as it was made.
OnTextRun = Callable[[TextRun], None]


def ignore_text_run(reading: TextRun) -> None:
    """For runs that nobody counts."""
