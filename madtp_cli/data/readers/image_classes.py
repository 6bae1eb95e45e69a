"""A folder of images in one folder per class: train/dog/1.jpg. Without split folders: dog/1.jpg.

Splits are folders called train, val and test. Without them, some images of each run are held out as test images.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from madtp_cli.data import schemas
from madtp_cli.data.dataset import SPLITS, Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.data.parsing import tables
from madtp_cli.data.parsing.annotation_files import split_in_name
from madtp_cli.data.parsing.columns import IMAGE_SUFFIXES
from madtp_cli.data.schemas import Schema
from madtp_cli.data.validation_split import add_validation_split
from madtp_cli.errors import DataError

LAYOUT = "folder of images by class (train/dog/1.jpg)"
#: Share of the images that become the test split of data without split folders.
TEST_SHARE = 0.2
#: Seed of the choice of these images, always the same.
SEED = 0


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether there are folders of images below the path or below its split folders."""
    return schema == schemas.CLASSES and any(_classes(folder) for folder in _split_folders(path).values())


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; the classes are the folders of all splits, in alphabetical order.

    Raises:
        DataError: There is an `image_root`, or two folders are the same split.
    """
    if image_root is not None:
        raise DataError(f"The images in {path} are in the folders of their classes.\nLeave out --image-root.")
    folders = {split: _classes(folder) for split, folder in _split_folders(path).items()}
    names = sorted({folder.name for of_split in folders.values() for folder in of_split})
    numbers = {name: number for number, name in enumerate(names)}
    rows: dict[str, Sequence[Row]] = {split: _rows(path, found, numbers) for split, found in folders.items() if found}
    notes: list[str] = []
    if path == next(iter(_split_folders(path).values())):
        rows = _with_test_split(rows["train"], notes)
    if "val" not in rows and "train" in rows:
        add_validation_split(rows, notes)
    kept = {split: rows[split] for split in SPLITS if split in splits and rows.get(split)}
    return Dataset(schema.name, f"{path} ({LAYOUT})", kept, notes, answers=tuple(names))


def _split_folders(path: Path) -> dict[str, Path]:
    """Return the folder of each split; without split folders the path itself as train."""
    if not path.is_dir():
        return {}
    found: dict[str, Path] = {}
    for folder in tables.split_folders(path):
        split = str(split_in_name(folder.name))
        if not _classes(folder):
            continue
        if split in found:
            raise DataError(f"{found[split]} and {folder} are both the {split} split.\nMove one of them away.")
        found[split] = folder
    return found or {"train": path}


def _classes(folder: Path) -> list[Path]:
    """Return the folders below a folder that hold images."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    return [folder / name for name in names if _images(folder / name)]


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES)


def _rows(path: Path, classes: Sequence[Path], numbers: Mapping[str, int]) -> list[Row]:
    return [
        Row(
            (folder / name).relative_to(path).as_posix(),
            (ImageFile(folder / name),),
            folder.name,
            numbers[folder.name],
            references=(folder.name,),
        )
        for folder in classes
        for name in _images(folder)
    ]


def _with_test_split(rows: Sequence[Row], notes: list[str]) -> dict[str, Sequence[Row]]:
    """Hold out a part of the rows as test split, and add a note about it."""
    chosen = set(random.Random(SEED).sample(range(len(rows)), max(1, round(TEST_SHARE * len(rows)))))
    test = [row for number, row in enumerate(rows) if number in chosen]
    notes.append(
        f"no split folders: {len(test):,} of {len(rows):,} images held out as test split, always the same ones"
    )
    return {"train": [row for number, row in enumerate(rows) if number not in chosen], "test": test}
