"""The built-in data set: pairs of scenes, drawn when they are asked for."""

from __future__ import annotations

import functools
import random
from collections.abc import Collection, Sequence
from typing import overload

from madtp_cli.data.rows import Dataset, Row
from madtp_cli.data.scenes import SPLITS, draw_pair
from madtp_cli.errors import UsageError

TASKS = ("nlvr2",)
SIZES = {"train": 20_000, "val": 1_000, "test": 2_000}


class ScenePairs(Sequence[Row]):
    """Rows of one split; item i is the same whatever the length, and drawn on demand."""

    def __init__(self, split: str, numbers: range) -> None:
        """Take the pairs with these numbers."""
        self.split, self.numbers = split, numbers

    def __len__(self) -> int:
        """Rows there are; none is drawn for it."""
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> ScenePairs: ...

    def __getitem__(self, index: int | slice) -> Row | ScenePairs:
        """A row, drawn now, or some of them, still undrawn."""
        if isinstance(index, slice):
            return ScenePairs(self.split, self.numbers[index])
        return _row(self.split, self.numbers[index])


@functools.lru_cache(maxsize=4096)
def _row(split: str, number: int) -> Row:
    # The stream that `scenes.pairs` draws item `number` from.
    pair = draw_pair(split, random.Random(f"nlvr2/{split}/0/{number}"))
    statement = pair.statement  # holds a function, so the row takes only its words: rows travel to worker processes
    return Row(f"scenes/{split}/{number}", (pair.left, pair.right), statement.text, int(pair.label), statement.kind)


def rows(task: str, split: str, number: int) -> ScenePairs:
    """The first rows of a split.

    Raises:
        UsageError: The scenes have no such task.
    """
    if task not in TASKS:
        raise UsageError(
            f"The built-in scenes have no data for task {task!r}; they have {', '.join(TASKS)}.\n"
            "Choose one of these tasks, or give your own data with --data."
        )
    return ScenePairs(split, range(number))


def read(task: str, splits: Collection[str] = SPLITS) -> Dataset:
    """The built-in data set of a task."""
    drawn: dict[str, Sequence[Row]] = {split: rows(task, split, SIZES[split]) for split in SPLITS if split in splits}
    return Dataset(task, "the built-in scenes", drawn)
