"""A table with one row per line: CSV or TSV with a header, JSON lines, or a JSON list.

The image column is the one whose cells name images. The columns of captions, questions, answers, sentences and labels
are found by their usual names. open_clip's tables have this layout, and so have Hugging Face's image folders with a
metadata.csv or metadata.jsonl in one folder per split.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from madtp_cli.data.dataset import Dataset
from madtp_cli.data.files import listed
from madtp_cli.data.parsing import columns, delimited, tables
from madtp_cli.data.parsing.annotation_files import ANNOTATION_FOLDERS, data_folder
from madtp_cli.data.parsing.tables import Table
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

LAYOUT = "table with an image column (CSV, TSV or JSON lines)"
#: Annotation files of other layouts are tables too.
FALLBACK = True

_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson"}


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether a file has a column of images and the columns of the schema."""
    return any(_matches(file, path, schema) for file in _files(path))


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out.

    Raises:
        DataError: Several files belong to one split, or columns or values are missing or wrong.
    """
    files: dict[str | None, list[Path]] = {}
    for file in _files(path):
        if _matches(file, path, schema):
            files.setdefault(tables.split_of(file, path), []).append(file)
    _refuse_several(files)
    found = [Table(of_split[0], split, partial(delimited.load, of_split[0])) for split, of_split in files.items()]
    notes = []
    if len(found) > 1 and None in files:
        found = [table for table in found if table.split]
        notes = [f"{files[None][0].name} not used: its name contains no split name"]
    return tables.read_tables(path, schema, splits, image_root, layout=LAYOUT, tables=found, notes=notes)


def _refuse_several(files: dict[str | None, list[Path]]) -> None:
    for split, of_split in files.items():
        if of_split[1:]:
            names = ", ".join(str(file) for file in of_split[:3])
            problem = f"belong to the {split} split" if split else "have no split name in their names"
            raise DataError(f"Several tables {problem} ({names}).\nGive one of them, or move the others away.")


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    folders = [path, *(path / name for name in ANNOTATION_FOLDERS), *tables.split_folders(path)]
    return sorted(file for folder in dict.fromkeys(folders) for file in listed(folder, _SUFFIXES))


def _matches(file: Path, path: Path, schema: Schema) -> bool:
    rows = delimited.first_rows(file)[: tables.SAMPLED_ROWS]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if schema.has_captions and delimited.lacks_header(names):
        return True  # reading it reports that the header is missing
    exists = tables.file_finder(data_folder(path), file)
    unanswered = tables.split_of(file, path) == "test"  # the answers of a test split are often kept secret
    return columns.can_hold(schema, names, columns.image_columns(rows, exists), unanswered=unanswered)
