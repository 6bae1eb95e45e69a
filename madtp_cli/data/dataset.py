"""Rows of a data set: the output of every reader and the input of every task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from PIL.Image import Image

from madtp_cli.data.subsets import subset
from madtp_cli.errors import DataError

#: Names of the splits, in the order of reports.
SPLITS = ("train", "val", "test")


@runtime_checkable
class ImageSource(Protocol):
    """Where one image comes from: a file, bytes inside another file, or a scene that is drawn.

    An image source is small and holds no pixels. It is hashable and can be pickled, because rows are sent to worker
    processes. Two sources are equal if they stand for the same image. `str(source)` says where the image is; error
    messages print it.
    """

    @property
    def opens_fast(self) -> bool:
        """Whether `open` is so fast that worker processes do not pay off."""
        ...

    def open(self) -> Image:
        """Return the image in any mode; the pixels may be decoded later, when they are used.

        Raises:
            OSError: The image is missing or is not an image.
        """
        ...


@dataclass(frozen=True)
class Row:
    """One sample: images, a text and, where the data have them, a label or references.

    `madtp_cli.data.schemas` says what these fields hold for each kind of data. `kind` names a group of rows whose
    accuracy is also reported separately.
    """

    identifier: str
    images: tuple[ImageSource, ...]
    text: str
    label: int | None = None
    kind: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Rows of each split, where they come from, and notes for the user.

    Args:
        schema: Name of the schema of the rows, see `madtp_cli.data.schemas`.
        source: Path and layout, for messages.
        splits: Rows by split. A split may be lazy: it has a length and slices, and creates a row on access.
        notes: Facts that the user should know, such as files that were not read.
        answers: Every answer that a question can have, if the data list them.
        random_order: Whether the rows are in random order, so that the first ones represent all of them.
    """

    schema: str
    source: str
    splits: dict[str, Sequence[Row]]
    notes: list[str] = field(default_factory=list)
    answers: tuple[str, ...] = ()
    random_order: bool = False

    def split(self, name: str) -> Sequence[Row]:
        """Return the rows of one split.

        Raises:
            DataError: The data set has no such split.
        """
        if name not in self.splits:
            available = ", ".join(self.splits) or "none"
            raise DataError(
                f"There is no {name} split in {self.source}; found: {available}.\n"
                f"Add an annotation file with {name!r} in its name, or choose another split."
            )
        return self.splits[name]

    def choose(self, rows: Sequence[Any], number: int) -> Sequence[Any]:
        """Return at most `number` rows, or numbers of rows, that represent all: the same ones each time, in order."""
        return rows[:number] if self.random_order else subset(rows, number)
