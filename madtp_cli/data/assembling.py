"""From annotation records to a data set: what all readers of annotation files share."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from madtp_cli.data import answers, images, records
from madtp_cli.data.dataset import Dataset, ImageSource, Row
from madtp_cli.data.records import Fits, Record
from madtp_cli.scenes.generator import SPLITS

#: Share and largest number of train rows set aside where there is no validation split.
CARVED_SHARE, CARVED_MOST = 0.1, 5_000
#: The tasks whose rows are images with all their captions.
CAPTIONED = ("caption", "retrieval")
#: What the references of a task's rows are called.
REFERENCES = {"vqa": "answer", "caption": "caption", "retrieval": "caption"}


@dataclass(frozen=True, slots=True)
class Draft:
    """A row whose images are not found yet; `names` has one tuple of paths per possible arrangement."""

    identifier: str
    names: tuple[tuple[str, ...], ...]
    text: str
    label: int | None = None
    references: tuple[str, ...] = ()


#: What a record says, with the record itself for errors that are found later.
Drafted = tuple[Record, Draft]


def captioned(names: tuple[tuple[str, ...], ...], captions: tuple[str, ...]) -> Draft:
    """The draft of an image with its captions; the image's name is its identifier."""
    return Draft(names[0][0], names, captions[0] if captions else "", references=captions)


def assemble(
    path: Path,
    task: str,
    splits: Collection[str],
    image_root: Path | None,
    *,
    layout: str,
    fits: Fits,
    draft: Callable[[Record], Draft],
) -> Dataset:
    """Read the splits that are asked for and there, each from the file whose name tells it.

    Args:
        path: A data folder or one annotation file.
        task: What the rows are for.
        splits: Those wanted.
        image_root: Where the images lie; looked for around `path` if None.
        layout: The layout in a few words.
        fits: Whether a record that opens a file is of this layout.
        draft: What a record says.
    """
    files, notes = records.find(path, fits)

    def drafted(split: str) -> list[Drafted]:
        return [(record, draft(record)) for record in records.load(files[split])]

    return gather(path, task, splits, image_root, layout=layout, there=files, drafted=drafted, notes=notes)


def gather(
    path: Path,
    task: str,
    splits: Collection[str],
    image_root: Path | None,
    *,
    layout: str,
    there: Collection[str],
    drafted: Callable[[str], Iterable[Drafted]],
    notes: list[str],
) -> Dataset:
    """Read the splits that are asked for and there, one row per image for captions and retrieval, and VQA's answers.

    Args:
        path: As for `assemble`, like the next four.
        task: What the rows are for.
        splits: Those wanted.
        image_root: Where the images lie; looked for around `path` if None.
        layout: The layout in a few words.
        there: The splits that the data have.
        drafted: The drafts of a split; asked only for splits that are needed.
        notes: What to tell the user so far.

    Raises:
        DataError: A row has no reference to learn from or to be scored by, or the answer list is broken.
    """
    needed = {split for split in there if split in splits}
    if "val" in splits and "val" not in there and "train" in there:
        needed.add("train")
    read: dict[str, Sequence[Row]] = {}
    for split in [split for split in SPLITS if split in needed]:
        pairs = _per_image(drafted(split)) if task in CAPTIONED else list(drafted(split))
        _check_references(pairs, task, split, notes)
        read[split] = _rows(pairs, image_root or records.home(path))
    if "train" in read and "val" not in there:
        set_aside_validation(read, notes)
    kept = {split: read[split] for split in SPLITS if split in splits and read.get(split)}
    return Dataset(task, f"{path} ({layout})", kept, notes, answers.listed(path) if task == "vqa" else ())


def _per_image(drafted: Iterable[Drafted]) -> list[Drafted]:
    """Join the drafts about one image, in the order of their first."""
    firsts: dict[tuple[tuple[str, ...], ...], Drafted] = {}
    captions: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for record, draft in drafted:
        firsts.setdefault(draft.names, (record, draft))
        captions.setdefault(draft.names, []).extend(draft.references)
    return [(record, captioned(names, tuple(captions[names]))) for names, (record, _) in firsts.items()]


def _check_references(drafted: Sequence[Drafted], task: str, split: str, notes: list[str]) -> None:
    """Only a test split may be without answers, and then as a whole, as those that a server scores are."""
    if task not in REFERENCES:
        return
    without = [record for record, draft in drafted if not draft.references]
    if without and task == "vqa" and split == "test" and len(without) == len(drafted):
        notes.append("the test split has no answers: it can be answered, not scored")
    elif without:
        raise without[0].error(f"the row has no {REFERENCES[task]}", "Add one, or remove the row.")


def _rows(drafted: Sequence[Drafted], home: Path) -> list[Row]:
    found = images.locate([images.Wanted(record, draft.names) for record, draft in drafted], home)
    return [
        Row(draft.identifier, paths, draft.text, draft.label, references=draft.references)
        for (_, draft), paths in zip(drafted, found, strict=True)
    ]


def set_aside_validation(read: dict[str, Sequence[Row]], notes: list[str]) -> None:
    """Make "val" of some of the "train" rows, and say so."""
    read["train"], read["val"] = carve(read["train"])
    notes.append(_carved(len(read["train"]), len(read["val"])))


def carve(rows: Sequence[Row], seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Split train rows into train and validation rows that share no image.

    Rows that share an image, directly or through others, stay together; a group larger
    than what is still wanted stays in train, so validation can stay empty.
    """
    groups = groups_by_image(rows)
    rng = random.Random(f"carve/{seed}")
    wanted = min(CARVED_MOST, max(1, round(CARVED_SHARE * len(rows))))
    chosen: set[int] = set()
    for _, group in sorted((rng.random(), group) for group in groups):
        if len(chosen) + len(group) <= wanted and len(group) < len(rows):
            chosen.update(group)
    train = [row for number, row in enumerate(rows) if number not in chosen]
    return train, [row for number, row in enumerate(rows) if number in chosen]


def groups_by_image(rows: Sequence[Row]) -> list[list[int]]:
    """Return the row numbers of each group; rows that share an image, directly or through others, are one group."""
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
