"""Makes a validation split from train rows, for data that have none."""

from __future__ import annotations

import random
from collections.abc import Sequence

from madtp_cli.data.dataset import ImageSource, Row

#: Share and largest number of train rows that become the validation split.
HELD_OUT_SHARE, MAX_HELD_OUT = 0.1, 5_000


def add_validation_split(splits: dict[str, Sequence[Row]], notes: list[str]) -> None:
    """Move some rows of "train" to a new split "val", and add a note about it."""
    train, val = hold_out_validation(splits["train"])
    splits["train"], splits["val"] = train, val
    if val:
        total = len(train) + len(val)
        notes.append(f"no validation split: {len(val):,} of {total:,} train rows held out; no image is in both splits")
    else:
        notes.append("no validation split: no train rows held out, because there are too few or all share images")


def hold_out_validation(rows: Sequence[Row], seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Divide train rows into train rows and validation rows that have no image in common.

    Rows that share an image, directly or through other rows, stay together. A group of such rows that is larger than
    the remaining validation split stays in train, so the validation split can stay empty.
    """
    # The word "carve" is part of the random seed: another word would change which rows are held out.
    rng = random.Random(f"carve/{seed}")
    wanted = min(MAX_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(rows))))
    chosen: set[int] = set()
    for _, group in sorted((rng.random(), group) for group in groups_by_image(rows)):
        if len(chosen) + len(group) <= wanted and len(group) < len(rows):
            chosen.update(group)
    train = [row for number, row in enumerate(rows) if number not in chosen]
    return train, [row for number, row in enumerate(rows) if number in chosen]


def groups_by_image(rows: Sequence[Row]) -> list[list[int]]:
    """Groups of row numbers whose rows are connected by shared images, in the order of their first rows.

    Disjoint sets: every image points to another image of its group, and the root of the group points to itself.
    """
    parents: dict[ImageSource, ImageSource] = {}

    def root(image: ImageSource) -> ImageSource:
        while parents.setdefault(image, image) != image:
            parents[image] = image = parents[parents[image]]  # shortens the path for later calls
        return image

    for row in rows:
        for image in row.images[1:]:
            parents[root(image)] = root(row.images[0])
    groups: dict[ImageSource, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(root(row.images[0]), []).append(number)
    return list(groups.values())
