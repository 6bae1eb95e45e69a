"""A table with a line per row: CSV or TSV with a header, JSON lines, or a JSON list.

The image column is the one whose cells name images; caption, question, answer, sentence and label are known
by the usual names of such columns. Also open_clip's tables and Hugging Face's image folders with a
metadata.csv or metadata.jsonl, in one folder per split.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from madtp_cli.data import columns, delimited, records, tables
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.tables import Table
from madtp_cli.errors import DataError

LAYOUT = "table with an image column (CSV, TSV or JSON lines)"
#: Annotation files of other layouts are tables too.
GENERAL = True

_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson"}


def recognises(path: Path, task: str) -> bool:
    """Whether a file has a column of images and the task's columns."""
    return any(_fits(file, path, task) for file in _files(path))


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there.

    Raises:
        DataError: Several files claim one split, or columns or rows are missing or wrong.
    """
    claims: dict[str | None, list[Path]] = {}
    for file in _files(path):
        if _fits(file, path, task):
            claims.setdefault(tables.split_of(file, path), []).append(file)
    for split, files in claims.items():
        if files[1:]:
            names = ", ".join(str(file) for file in files[:3])
            whose = f"the {split} split" if split else "all splits: no name tells its own"
            raise DataError(f"Several tables claim {whose} ({names}).\nGive one of them, or move the others away.")
    found = [Table(files[0], split, partial(delimited.load, files[0])) for split, files in claims.items()]
    if len(found) > 1 and None in claims:
        found = [table for table in found if table.split]
        notes = [f"{claims[None][0].name} left out: its name tells no split"]
    else:
        notes = []
    return tables.assemble(path, task, splits, image_root, layout=LAYOUT, tables=found, notes=notes)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    folders = [path, *(path / place for place in records.PLACES), *tables.split_folders(path)]
    every = [file for folder in dict.fromkeys(folders) for file in folder.glob("*") if file.suffix in _SUFFIXES]
    return sorted(file for file in every if file.is_file())


def _fits(file: Path, path: Path, task: str) -> bool:
    rows = delimited.peek(file)[: tables.SAMPLED]
    names = list(dict.fromkeys(name for row in rows for name in row))
    if task in ("caption", "retrieval") and delimited.lacks_header(names):
        return True  # to be complained about
    return columns.may_serve(task, names, columns.image_columns(rows, tables.finder(records.home(path), file)))
