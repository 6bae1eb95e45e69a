"""From annotation records to a data set: what all readers of annotation files share."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.data import images, records
from madtp_cli.data.records import Record
from madtp_cli.data.rows import Dataset, ImageSource, Row
from madtp_cli.data.scenes import SPLITS

#: Share and largest number of train rows set aside where there is no validation split.
CARVED_SHARE, CARVED_MOST = 0.1, 5_000


@dataclass(frozen=True)
class Draft:
    """A row whose images are not found yet; `names` has one tuple of paths per possible arrangement."""

    identifier: str
    names: tuple[tuple[str, ...], ...]
    text: str
    label: int | None


def assemble(
    path: Path,
    task: str,
    splits: Collection[str],
    image_root: Path | None,
    *,
    layout: str,
    fits: Callable[[dict[str, Any]], bool],
    draft: Callable[[Record], Draft],
) -> Dataset:
    """Read the splits that are asked for and there.

    Args:
        path: A data folder or one annotation file.
        task: What the rows are for.
        splits: Those wanted.
        image_root: Where the images lie; looked for around `path` if None.
        layout: The layout in a few words.
        fits: Whether a first record is of this layout.
        draft: What a record says.
    """
    files, notes = records.find(path, fits)
    needed = {split for split in files if split in splits}
    if "val" in splits and "val" not in files and "train" in files:
        needed.add("train")
    read: dict[str, Sequence[Row]] = {
        split: _rows(files[split], image_root or records.home(path), draft) for split in SPLITS if split in needed
    }
    if "train" in read and "val" not in files:
        read["train"], read["val"] = carve(read["train"])
        notes.append(_carved(len(read["train"]), len(read["val"])))
    kept = {split: read[split] for split in SPLITS if split in splits and read.get(split)}
    return Dataset(task, f"{path} ({layout})", kept, notes)


def _rows(file: Path, home: Path, draft: Callable[[Record], Draft]) -> list[Row]:
    loaded = records.load(file)
    drafts = [draft(record) for record in loaded]
    wanted = [images.Wanted(record, drawn.names) for record, drawn in zip(loaded, drafts, strict=True)]
    found = images.locate(wanted, home)
    return [Row(d.identifier, paths, d.text, d.label) for d, paths in zip(drafts, found, strict=True)]


def carve(rows: Sequence[Row], seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Split train rows into train and validation rows that share no image.

    Rows that share an image, directly or through others, stay together; a group larger
    than what is still wanted stays in train, so validation can stay empty.
    """
    groups = _groups(rows)
    rng = random.Random(f"carve/{seed}")
    wanted = min(CARVED_MOST, max(1, round(CARVED_SHARE * len(rows))))
    chosen: set[int] = set()
    for _, group in sorted((rng.random(), group) for group in groups):
        if len(chosen) + len(group) <= wanted and len(group) < len(rows):
            chosen.update(group)
    train = [row for number, row in enumerate(rows) if number not in chosen]
    return train, [row for number, row in enumerate(rows) if number in chosen]


def _groups(rows: Sequence[Row]) -> list[list[int]]:
    """Numbers of the rows that hang together by their images, in the order of their first row."""
    leaders: dict[ImageSource, ImageSource] = {}

    def leader(image: ImageSource) -> ImageSource:
        while leaders.setdefault(image, image) != image:
            leaders[image] = image = leaders[leaders[image]]  # halves the way for the next one
        return image

    for row in rows:
        for image in row.images[1:]:
            leaders[leader(image)] = leader(row.images[0])
    groups: dict[ImageSource, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(leader(row.images[0]), []).append(number)
    return list(groups.values())


def _carved(train: int, val: int) -> str:
    if not val:
        return "no validation split, and none could be set aside: too few train rows, or all share their images"
    return f"no validation split: {val:,} of {train + val:,} train rows set aside for it, no image in both"
