"""What every reader gives and every task takes: rows with images and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from madtp_cli.data.embedded import Embedded
from madtp_cli.errors import DataError
from madtp_cli.scenes.generator import Scene

#: An image is a file to decode, bytes inside another file, or a scene to paint; it happens when a batch is built.
ImageSource = Path | Embedded | Scene


@dataclass(frozen=True)
class Row:
    """One sample of a task.

    NLVR2: two images (left, right), a sentence and, as `label`, whether it is true. VQA: an image, a
    question, and as `references` what people answered, one string each. Captions and retrieval: an image, one
    of its captions as `text`, and all of them as `references`. `kind` names a group that is also scored alone.
    """

    identifier: str
    images: tuple[ImageSource, ...]
    text: str
    label: int | None = None
    kind: str | None = None
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Rows by split ("train", "val", "test"), where they came from, and what to tell the user.

    A split may be lazy: it has a length, items and slices, and draws an item when asked. `answers` are all
    those that a question can have, where the data list them.
    """

    task: str
    source: str
    splits: dict[str, Sequence[Row]]
    notes: list[str] = field(default_factory=list)
    answers: tuple[str, ...] = ()

    def split(self, name: str) -> Sequence[Row]:
        """The rows of one split.

        Raises:
            DataError: There is no such split.
        """
        if name not in self.splits:
            there = ", ".join(self.splits) or "nothing"
            raise DataError(
                f"No {name} split in {self.source}; found: {there}.\n"
                f"Add an annotation file with {name!r} in its name, or choose another split."
            )
        return self.splits[name]
