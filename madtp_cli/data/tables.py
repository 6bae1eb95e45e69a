"""From tables of images and words to a data set: what the readers of tables, folders and archives share."""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from madtp_cli.data import columns, images, records
from madtp_cli.data.assembling import set_aside_validation
from madtp_cli.data.columns import Columns
from madtp_cli.data.dataset import Dataset, ImageSource, Row
from madtp_cli.data.embedded import Embedded
from madtp_cli.data.records import Record
from madtp_cli.scenes.generator import SPLITS

#: Rows looked at to tell what a column holds.
SAMPLED = 50
#: Longer cells are taken as words: Python's own parser is slow and may give up on what is nested deeply.
_LONGEST_LIST = 10_000
#: Splits that are called otherwise than `records.split_named` knows; Karpathy's "restval" joins the train rows.
_OTHER_SPLITS = {"restval": "train"}


@dataclass(frozen=True)
class Table:
    """Rows of one file, loaded when they are needed; `split` is what its name says, None if nothing."""

    file: Path
    split: str | None
    load: Callable[[], Sequence[Record]]


@dataclass
class _Sample:
    """A row whose images may still be names."""

    record: Record
    images: tuple[str | Embedded, ...]
    text: str
    label: int | None = None
    references: list[str] = field(default_factory=list)


def split_folders(path: Path) -> list[Path]:
    """Folders below a data folder that are named after a split."""
    return sorted(
        folder for folder in path.iterdir() if folder.is_dir() and records.split_named(folder.name) is not None
    )


def split_of(file: Path, below: Path) -> str | None:
    """The split that a file's name tells, or that of its folder below the data folder."""
    folder = records.split_named(file.parent.name) if file.parent != below and below.is_dir() else None
    return records.split_named(file.stem) or folder


def assemble(
    path: Path,
    task: str,
    splits: Collection[str],
    image_root: Path | None,
    *,
    layout: str,
    tables: Sequence[Table],
    notes: Sequence[str] = (),
) -> Dataset:
    """Read the splits that are asked for and there.

    A table whose name tells no split is divided by its `split` column; without one it is all "train".

    Args:
        path: What the user gave.
        task: What the rows are for.
        splits: Those wanted.
        image_root: Where the images lie; looked for around `path` if None.
        layout: The layout in a few words.
        tables: All there are; only those that are needed are loaded.
        notes: What the user should be told about them.
    """
    wanted = {*splits, "train"} if "val" in splits and not any(table.split == "val" for table in tables) else {*splits}
    parts: dict[str, list[Record]] = {}
    undivided: list[Path] = []
    for table in tables:
        if table.split is None or table.split in wanted:
            for split, found in _by_split(table, table.load(), undivided).items():
                parts.setdefault(split, []).extend(found)
    told = [*notes, *_undivided(undivided)]
    has_val = "val" in parts
    needed = {*splits} if has_val else wanted
    home = (image_root or records.home(path)).absolute()
    read: dict[str, Sequence[Row]] = {
        split: _rows(parts[split], task, home) for split in SPLITS if split in needed and split in parts
    }
    if "train" in read and not (has_val or any(table.split == "val" for table in tables)):
        set_aside_validation(read, told)
    kept = {split: read[split] for split in SPLITS if split in splits and read.get(split)}
    return Dataset(task, f"{path} ({layout})", kept, told)


def _undivided(files: Sequence[Path]) -> list[str]:
    if not files:
        return []
    which = f"{files[0].name} tells" if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more tell"
    return [f"{which} no split: all rows are train; to evaluate on them give --split train or --split val"]


def _by_split(table: Table, found: Sequence[Record], undivided: list[Path]) -> dict[str, list[Record]]:
    if table.split is not None:
        return {table.split: list(found)}
    if not any("split" in record.fields for record in found):
        undivided.append(table.file)
        return {"train": list(found)}
    parts: dict[str, list[Record]] = {}
    for record in found:
        name = record.text("split").strip().lower()
        split = _OTHER_SPLITS.get(name) or records.split_named(name)
        if split is None:
            raise record.error(f"split {name!r} is none that is known", "Write train, val or test.")
        parts.setdefault(split, []).append(record)
    return parts


def _rows(found: Sequence[Record], task: str, home: Path) -> list[Row]:
    """The rows of one split, in the order of their first records."""
    sampled = [record.fields for record in found[:: max(1, len(found) // SAMPLED)]]
    names = list(dict.fromkeys(name for fields in sampled for name in fields))
    folder = _below(found[0].file.parent, home)
    pictures = columns.image_columns(sampled, finder(home, found[0].file))
    chosen = columns.choose(task, names, pictures, found[0].file)
    samples = list(_grouped([_sample(record, task, chosen, home) for record in found], task))
    sources = _sources(samples, home, folder)
    return [
        Row(
            f"{_relative(sample.record.file, home)}/{sample.record.row}",
            pictures_of,
            sample.text,
            sample.label,
            references=tuple(sample.references),
        )
        for sample, pictures_of in zip(samples, sources, strict=True)
    ]


def finder(home: Path, file: Path) -> Callable[[str], bool]:
    """Whether a file of a name is where a table's images are looked for; asks nothing about files elsewhere."""
    folder = _below(file.parent, home)
    there = [home / root for root in images.ROOTS if (home / root).is_dir()]
    roots = [images.Root(path, there) for path in there]

    def is_there(name: str) -> bool:
        inside = _inside(name, home)
        if not inside or images.leaves(inside) or len(inside) > 1_000:
            return False
        return any(root.has(place) for root in roots for place in (inside, folder + inside))

    return is_there


def _below(folder: Path, home: Path) -> str:
    """The folder of a table as a beginning of image paths; images may be named from there on."""
    inside = folder.absolute().is_relative_to(home) and folder.absolute() != home
    return f"{folder.absolute().relative_to(home).as_posix()}/" if inside else ""


def _inside(name: str, home: Path) -> str:
    """An absolute path below the image folder as a relative one; any other as it is."""
    return name.removeprefix(f"{home.as_posix()}/")


def _relative(file: Path, home: Path) -> str:
    return f"{_below(file.parent, home)}{file.stem}"


def _sample(record: Record, task: str, chosen: Columns, home: Path) -> _Sample:
    pictures = tuple(_picture(record, name, home) for name in chosen.images)
    if task == "nlvr2":
        return _Sample(record, pictures, record.text(chosen.text[0]), _truth(record, str(chosen.answer)))
    if task == "vqa":
        return _Sample(record, pictures, record.text(chosen.text[0]), None, _texts(record, str(chosen.answer)))
    # Some images have fewer captions than there are columns for them.
    filled = [name for name in chosen.text if record.fields.get(name) not in (None, "")] or chosen.text[:1]
    captions = [caption for name in filled for caption in _texts(record, name)]
    return _Sample(record, pictures, captions[0], None, captions)


def _picture(record: Record, name: str, home: Path) -> str | Embedded:
    value = record.value(name)
    return value if isinstance(value, Embedded) else _inside(record.text(name), home)


def _truth(record: Record, name: str) -> int:
    value = record.value(name)
    return int(value) if value in ("0", "1") else record.truth(name)  # a CSV file knows no numbers


def _texts(record: Record, name: str) -> list[str]:
    """The words of a cell, or of each item of a list, which may be written as Python or JSON writes it."""
    value = record.value(name)
    items = _listed(value) if isinstance(value, str) else value
    items = items if isinstance(items, list) else [items]
    texts = [item.get("answer") if isinstance(item, dict) else item for item in items]
    texts = [str(text) if isinstance(text, int | float) else text for text in texts]
    words = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    if not words or len(words) < len(texts):
        raise record.error(f"field {name!r} must be words or a list of them", "Correct the row, or remove it.")
    return words


def _listed(text: str) -> Any:
    if text.startswith("[") and len(text) <= _LONGEST_LIST:
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return text


def _grouped(samples: Iterable[_Sample], task: str) -> Iterable[_Sample]:
    """One sample per image with all its captions, or per image and question with all its answers."""
    if task == "nlvr2":
        return samples
    groups: dict[tuple[object, ...], _Sample] = {}
    for sample in samples:
        key = (*sample.images, sample.text) if task == "vqa" else sample.images
        first = groups.setdefault(key, sample)
        if first is not sample:
            first.references.extend(sample.references)
    return groups.values()


def _sources(samples: Sequence[_Sample], home: Path, folder: str) -> list[tuple[ImageSource, ...]]:
    """The images of each sample, files looked for below the image folder and in the table's own."""
    wanted = []
    for sample in samples:
        names = tuple(name for name in sample.images if isinstance(name, str))
        if names:
            places = dict.fromkeys((names, tuple(folder + name for name in names)))
            wanted.append(images.Wanted(sample.record, tuple(places)))
    found = iter(images.locate(wanted, home)) if wanted else itertools.repeat(())
    return [
        next(found) if isinstance(sample.images[0], str) else tuple(i for i in sample.images if isinstance(i, Embedded))
        for sample in samples
    ]
