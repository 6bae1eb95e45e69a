"""Parquet files, as the Hugging Face hub stores data sets: train-00000-of-00002.parquet; needs the package `pyarrow`.

Images are in the rows, or the rows name image files. The columns of captions, questions, answers, sentences and labels
are found by their usual names.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from itertools import islice
from pathlib import Path

from madtp_cli.data.dataset import Dataset
from madtp_cli.data.files import listed
from madtp_cli.data.parsing import columns, parquet, tables
from madtp_cli.data.parsing.annotation_files import data_folder
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.parsing.tables import Table
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

LAYOUT = "Parquet files"


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether the first Parquet file has a column of images and the columns of the schema."""
    for file in _files(path)[:1]:
        try:
            names, _ = parquet.columns(file)
            first = list(islice(parquet.rows(file), tables.SAMPLED_ROWS))
        except DataError:
            return True  # reading it reports what is wrong
        unanswered = tables.split_of(file, path) == "test"
        images = columns.image_columns(first, tables.file_finder(data_folder(path), file))
        return columns.can_hold(schema, names, images, unanswered=unanswered)
    return False


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out.

    Raises:
        DataError: The package `pyarrow`, columns or values are missing, or a file is broken.
    """
    found = [Table(file, tables.split_of(file, path), partial(_load, file)) for file in _files(path)]
    return tables.read_tables(path, schema, splits, image_root, layout=LAYOUT, tables=found)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if parquet.is_parquet(path) else []
    folders = dict.fromkeys((path, path / "data", *tables.split_folders(path)))
    return sorted(file for folder in folders for file in listed(folder, (".parquet",)))


def _load(file: Path) -> list[Record]:
    records = [Record(file, number, fields) for number, fields in enumerate(parquet.rows(file), 1)]
    if not records:
        raise DataError(f"{file} is empty.\nDownload or write it again, or remove it.")
    return records
