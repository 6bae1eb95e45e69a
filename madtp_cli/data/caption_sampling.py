"""Rows for training in which every epoch uses another caption of an image."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from madtp_cli.data.dataset import Row


class SampledCaptions(Sequence[Row]):
    """Rows whose text is one of several captions, another one in each epoch.

    The order of the captions is random for each row, and every caption is used once before any is used again. Rows
    without captions, such as questions and statements, do not change.
    """

    def __init__(self, rows: Sequence[Row], seed: int, epoch: int) -> None:
        """Wrap rows, which stay lazy if they are lazy.

        Args:
            rows: The rows of a split.
            seed: The seed of the run; fixes the order of the captions of each row.
            epoch: The pass over the rows, 0 or more.
        """
        self.rows, self.seed, self.epoch = rows, seed, epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """Return one row or a list of rows with the captions of this epoch."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        row = self.rows[number]
        if row.text not in row.references:
            return row
        # The word "retold" is part of the random seed: another word would change which captions a run uses.
        order = random.Random(f"retold/{self.seed}/{number}").sample(row.references, len(row.references))
        return replace(row, text=order[self.epoch % len(order)])
