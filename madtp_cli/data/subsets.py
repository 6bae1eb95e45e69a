"""A part of the rows that represents all of them, also where the rows are in the order of their classes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, overload

#: Fixes which rows are chosen. It is not the seed of the run, so that all runs use the same samples.
SEED = 0


class Subset(Sequence[Any]):
    """Some rows of a split in their order; they stay lazy if they are lazy."""

    def __init__(self, rows: Sequence[Any], places: Sequence[int]) -> None:
        """Wrap rows.

        Args:
            rows: The rows of a split.
            places: Numbers of the chosen rows.
        """
        self.rows, self.places = rows, places

    def __len__(self) -> int:
        """Return the number of chosen rows."""
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Subset: ...

    def __getitem__(self, index: int | slice) -> Any:
        """Return one row, or the subset of a slice."""
        if isinstance(index, slice):
            return Subset(self.rows, self.places[index])
        return self.rows[self.places[index]]


def subset(rows: Sequence[Any], number: int) -> Sequence[Any]:
    """Return at most `number` rows, chosen at random but always the same ones, in the order of the rows.

    The first rows would not do: files are often sorted, for example by class or by image.
    """
    if number >= len(rows):
        return rows
    return Subset(rows, sorted(random.Random(SEED).sample(range(len(rows)), number)))
