"""Reads the images of data that have texts: each distinct image is one row without text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.schemas import SCHEMAS, Schema
from madtp_cli.errors import DataError


def schemas_with_texts() -> list[Schema]:
    """Return the schemas whose images can be used without their texts."""
    return [schema for schema in SCHEMAS.values() if not schema.images_alone and not schema.classes]


@dataclass
class ImagesOf:
    """A reader that takes the images of other readers.

    Attributes:
        readers: Readers that recognise a path, each with its schema. The first one that finds no fault counts.
    """

    readers: Sequence[tuple[Any, Schema]]

    def __post_init__(self) -> None:
        self.LAYOUT: str = self.readers[0][0].LAYOUT

    def recognises(self, path: Path, schema: Schema) -> bool:
        """Return whether images alone are wanted, and one of the readers recognises the path."""
        return schema.images_alone and any(reader.recognises(path, known) for reader, known in self.readers)

    def read(self, path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
        """Read the requested splits; an image of several rows becomes one row.

        Raises:
            DataError: The data have a fault for every reader.
        """
        errors: list[DataError] = []
        for reader, known in self.readers:
            try:
                dataset: Dataset = reader.read(path, known, splits, image_root)
            except DataError as error:
                errors.append(error)
                continue
            images: dict[str, Sequence[Row]] = {split: distinct_images(rows) for split, rows in dataset.splits.items()}
            return replace(dataset, schema=schema.name, splits=images, answers=())
        raise errors[0]


def distinct_images(rows: Sequence[Row]) -> list[Row]:
    """Return one row for each distinct image of some rows, in the order of its first row.

    >>> distinct_images([Row("7", ("a.jpg", "b.jpg"), "text"), Row("8", ("a.jpg",), "text")])[1].identifier
    '7/1'
    """
    found: dict[Any, Row] = {}
    for row in rows:
        for number, image in enumerate(row.images):
            if image not in found:
                name = row.identifier if len(row.images) == 1 else f"{row.identifier}/{number}"
                found[image] = Row(name, (image,), "")
    return list(found.values())
