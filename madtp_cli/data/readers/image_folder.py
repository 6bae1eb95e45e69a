"""A folder of images, at any depth, without texts or labels: train/1.jpg. Without split folders: 1.jpg.

Splits are folders called train, val and test. Without a test folder, some train images become the test split, always
the same ones.
"""

from __future__ import annotations

import os
import random
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from madtp_cli.data.dataset import SPLITS, Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.data.parsing import tables
from madtp_cli.data.parsing.annotation_files import split_in_name
from madtp_cli.data.parsing.columns import IMAGE_SUFFIXES
from madtp_cli.data.schemas import Schema
from madtp_cli.data.validation_split import add_validation_split
from madtp_cli.errors import DataError

LAYOUT = "folder of images (train/1.jpg)"
#: Annotation files and captions say which images belong to which split.
FALLBACK = True
#: Share and largest number of the images that become the test split of data without one.
TEST_SHARE, MOST_TEST = 0.2, 5_000
#: Seed of the choice of these images, always the same.
SEED = 0


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether there is an image below the path."""
    return schema.images_alone and path.is_dir() and next(_images(path), None) is not None


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits.

    Raises:
        DataError: There is an `image_root`.
    """
    if image_root is not None:
        raise DataError(f"{path} is the folder of the images.\nLeave out --image-root.")
    notes: list[str] = []
    rows: dict[str, Sequence[Row]] = {}
    for split, folders in _split_folders(path).items():
        rows[split] = [_row(path, image) for folder in folders for image in _images(folder)]
    if "test" not in rows and len(rows.get("train", ())) > 1:
        _add_test_split(rows, notes)
    if "val" not in rows and "train" in rows:
        add_validation_split(rows, notes)
    kept = {split: rows[split] for split in SPLITS if split in splits and rows.get(split)}
    return Dataset(schema.name, f"{path} ({LAYOUT})", kept, notes)


def _split_folders(path: Path) -> dict[str, list[Path]]:
    """Return the folders of each split; without split folders the path itself as train."""
    for folder in (path, path / "images"):
        found: dict[str, list[Path]] = {}
        for inner in tables.split_folders(folder) if folder.is_dir() else ():
            if next(_images(inner), None) is not None:
                found.setdefault(str(split_in_name(inner.name)), []).append(inner)
        if found:
            return found
    return {"train": [path]}


def _images(folder: Path) -> Iterator[Path]:
    """Yield the images below a folder, in alphabetical order; hidden files and folders are left out."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield Path(root, name)


def _row(path: Path, image: Path) -> Row:
    return Row(image.relative_to(path).as_posix(), (ImageFile(image),), "")


def _add_test_split(rows: dict[str, Sequence[Row]], notes: list[str]) -> None:
    """Move some train images to a new test split, and add a note about it."""
    train = rows["train"]
    size = min(MOST_TEST, max(1, round(TEST_SHARE * len(train))))
    chosen = set(random.Random(SEED).sample(range(len(train)), size))
    rows["test"] = [row for number, row in enumerate(train) if number in chosen]
    rows["train"] = [row for number, row in enumerate(train) if number not in chosen]
    notes.append(f"no test split: {size:,} of {len(train):,} train images held out, always the same ones")
