"""Hugging Face data sets on this disk, saved or cached, with a column of images; needs the extra `datasets`.

Columns of captions, questions, answers, sentences and labels are known by their usual names.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from madtp_cli.data import arrow, columns, records, tables
from madtp_cli.data.arrow import StoredImage
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Record
from madtp_cli.data.tables import Table
from madtp_cli.errors import DataError

LAYOUT = "Hugging Face data set"


def recognises(path: Path, task: str) -> bool:
    """Whether a data set's description has a column of images and the task's columns."""
    types = arrow.features(path) if path.is_dir() else {}
    return columns.may_serve(task, list(types), [name for name in types if arrow.is_image(types[name])])


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there.

    Raises:
        DataError: The package `datasets` is missing, or columns or rows are; or `image_root` is given.
    """
    if image_root is not None:
        raise DataError(f"The images of {path} lie in its tables, not in {image_root}.\nLeave out --image-root.")
    types = arrow.features(path)
    pictures = [name for name in types if arrow.is_image(types[name])]
    found = [
        Table(path / (name or path.name), records.split_named(name), partial(_load, path, name, table, pictures))
        for name, table in arrow.opened(path).items()
    ]
    return tables.assemble(path, task, splits, None, layout=LAYOUT, tables=found)


def _load(folder: Path, split: str, table: Any, pictures: list[str]) -> list[Record]:
    """The rows of one split; of an image only where it is."""
    words = table.remove_columns(pictures)
    rows = iter(words) if words.column_names else ({} for _ in range(len(table)))
    return [
        Record(folder / split, number + 1, {**row, **{n: StoredImage(folder, split, n, number) for n in pictures}})
        for number, row in enumerate(rows)
    ]
