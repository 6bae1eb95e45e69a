"""A folder of images in which a text file of the same name holds the captions, one per line: dog.jpg and dog.txt.

Splits are folders called train, val and test; without them, all images are train.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.files import read_text
from madtp_cli.data.parsing import tables
from madtp_cli.data.parsing.annotation_files import split_in_name
from madtp_cli.data.parsing.columns import IMAGE_SUFFIXES
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.parsing.tables import Table
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

LAYOUT = "folder of images with captions (img.jpg and img.txt)"
#: If there are annotation files, a text file next to an image may hold anything.
FALLBACK = True


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether an image has a text file of the same name."""
    return schema == schemas.CAPTIONS and any(_pairs(folder)[0] for folder in _folders(path))


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; images without a text file are left out.

    Raises:
        DataError: A text file is empty or not text, or `image_root` is another folder.
    """
    if image_root is not None and image_root.resolve() != path.resolve():
        raise DataError(
            f"The captions in {path} are next to their images, so the images cannot be in {image_root}.\n"
            "Leave out --image-root."
        )
    found, notes = [], []
    for folder in _folders(path):
        images, without_text = _pairs(folder)
        if images:
            split = split_in_name(folder.name) if folder != path else None
            found.append(Table(folder, split, partial(_load, path, images)))
        if images and without_text:
            notes.append(f"{without_text:,} images in {folder} not used: they have no text file")
    return tables.read_tables(path, schema, splits, path, layout=LAYOUT, tables=found, notes=notes)


def _folders(path: Path) -> list[Path]:
    return [path, path / "images", *tables.split_folders(path)] if path.is_dir() else []


def _pairs(folder: Path) -> tuple[list[Path], int]:
    """The images that have a text file, and the number of images that have none."""
    try:
        names = {name for name in os.listdir(folder) if not name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    images = sorted(name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)
    with_text = [folder / name for name in images if f"{os.path.splitext(name)[0]}.txt" in names]
    return with_text, len(images) - len(with_text)


def _load(data_folder: Path, images: Sequence[Path]) -> list[Record]:
    records = []
    for image in images:
        file = image.with_suffix(".txt")
        captions = [line.strip() for line in read_text(file, "TEXT_BYTES").splitlines() if line.strip()]
        if not captions:
            raise DataError(f"{file} is empty.\nWrite a caption into it, or remove it.")
        records.append(Record(file, 1, {"image": image.relative_to(data_folder).as_posix(), "caption": captions}))
    return records
