"""Hugging Face data sets on this disk, saved or cached, with a column of images; needs the extra `datasets`.

The columns of captions, questions, answers, sentences and labels are found by their usual names.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from madtp_cli.data.dataset import Dataset
from madtp_cli.data.parsing import arrow, columns, tables
from madtp_cli.data.parsing.annotation_files import split_in_name
from madtp_cli.data.parsing.arrow import StoredImage
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.parsing.tables import Table
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

LAYOUT = "Hugging Face data set"


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether the description of a data set has a column of images and the columns of the schema."""
    types = arrow.features(path) if path.is_dir() else {}
    return columns.can_hold(schema, list(types), [name for name in types if arrow.is_image(types[name])])


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out.

    Raises:
        DataError: The package `datasets`, columns or values are missing, or `image_root` is given.
    """
    if image_root is not None:
        raise DataError(f"The images of {path} are in its tables, not in {image_root}.\nLeave out --image-root.")
    types = arrow.features(path)
    image_columns = [name for name in types if arrow.is_image(types[name])]
    found = [
        Table(path / (name or path.name), split_in_name(name), partial(_load, path, name, table, image_columns))
        for name, table in arrow.open_tables(path).items()
    ]
    return tables.read_tables(path, schema, splits, None, layout=LAYOUT, tables=found)


def _load(folder: Path, split: str, table: Any, image_columns: list[str]) -> list[Record]:
    """The rows of one split; images are not loaded."""
    texts = table.remove_columns(image_columns)
    rows = iter(texts) if texts.column_names else ({} for _ in range(len(table)))
    return [
        Record(
            folder / split,
            number + 1,
            {**row, **{name: StoredImage(folder, split, name, number) for name in image_columns}},
        )
        for number, row in enumerate(rows)
    ]
