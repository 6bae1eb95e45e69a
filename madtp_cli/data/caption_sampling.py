"""Rows for training: each pass over an image tells another of its captions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from madtp_cli.data.dataset import Row


class Retold(Sequence[Row]):
    """Rows whose texts, where these are one of several captions, change from pass to pass.

    Which comes first is drawn for each row; the others follow, each once before one comes again. Rows
    without captions, such as questions and statements, stay as they are.
    """

    def __init__(self, rows: Sequence[Row], seed: int, epoch: int) -> None:
        """The rows in pass `epoch`, 0 or more, of a run with this seed; lazy ones stay lazy."""
        self.rows, self.seed, self.epoch = rows, seed, epoch

    def __len__(self) -> int:
        """As many as there are rows."""
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """A row, or some, with their captions of this pass."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = range(len(self))[index]
        row = self.rows[number]
        if row.text not in row.references:
            return row
        order = random.Random(f"retold/{self.seed}/{number}").sample(row.references, len(row.references))
        return replace(row, text=order[self.epoch % len(order)])
