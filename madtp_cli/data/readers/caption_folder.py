"""A folder of images, each with its captions in a text file of the same name, one a line: dog.jpg and dog.txt.

Splits are folders called train, val and test; without them all is train.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from madtp_cli.data import records, tables
from madtp_cli.data.columns import IMAGE_SUFFIXES
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Record
from madtp_cli.data.tables import Table
from madtp_cli.errors import DataError

LAYOUT = "folder of images with captions (img.jpg and img.txt)"
#: A text file beside an image may be anything where there are annotation files.
GENERAL = True


def recognises(path: Path, task: str) -> bool:
    """Whether an image has a text file of its name."""
    return task in ("caption", "retrieval") and any(_pairs(folder)[0] for folder in _folders(path))


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there; images without a text file are left out.

    Raises:
        DataError: A text file is empty or no text, or `image_root` is another folder.
    """
    if image_root is not None and image_root.resolve() != path.resolve():
        raise DataError(
            f"The captions of {path} lie beside their images, so they cannot lie in {image_root}.\n"
            "Leave out --image-root."
        )
    found, notes = [], []
    for folder in _folders(path):
        pairs, alone = _pairs(folder)
        if pairs:
            split = records.split_named(folder.name) if folder != path else None
            found.append(Table(folder, split, partial(_load, path, pairs)))
        if pairs and alone:
            notes.append(f"{alone:,} images in {folder} left out: they have no text file")
    return tables.assemble(path, task, splits, path, layout=LAYOUT, tables=found, notes=notes)


def _folders(path: Path) -> list[Path]:
    return [path, path / "images", *tables.split_folders(path)] if path.is_dir() else []


def _pairs(folder: Path) -> tuple[list[Path], int]:
    """Images that have a text file, and how many have none."""
    try:
        names = set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    pictures = sorted(name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    paired = [folder / name for name in pictures if f"{os.path.splitext(name)[0]}.txt" in names]
    return paired, len(pictures) - len(paired)


def _load(home: Path, pictures: Sequence[Path]) -> list[Record]:
    found = []
    for picture in pictures:
        file = picture.with_suffix(".txt")
        try:
            captions = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not text in UTF-8 (byte {error.start}).\nSave it as UTF-8.") from error
        if not captions:
            raise DataError(f"{file} is empty.\nWrite a caption into it, or remove it.")
        found.append(Record(file, 1, {"image": picture.relative_to(home).as_posix(), "caption": captions}))
    return found
