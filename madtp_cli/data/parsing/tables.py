"""Builds a data set from tables of images and texts, for the readers of tables, folders and archives."""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from madtp_cli.data import images
from madtp_cli.data.dataset import SPLITS, Dataset, ImageSource, Row
from madtp_cli.data.parsing import columns
from madtp_cli.data.parsing.annotation_files import data_folder, split_in_name, split_word
from madtp_cli.data.parsing.columns import ChosenColumns
from madtp_cli.data.parsing.records import Record, as_text
from madtp_cli.data.schemas import Schema
from madtp_cli.data.validation_split import add_validation_split

#: Rows that are checked to find out what a column holds.
SAMPLED_ROWS = 50
#: The note about a test split without answers.
NO_ANSWERS = "the test split has no answers: a model can answer its questions, but they cannot be scored"
#: Longer cells are taken as plain text: Python's parser is slow, and fails for deeply nested lists.
_MAX_LIST_LENGTH = 10_000
#: Further names of splits. Karpathy's "restval" is a part of train.
_SPLIT_NAMES = {"restval": "train"}


@dataclass(frozen=True)
class Table:
    """The rows of one file.

    Args:
        file: The file.
        split: The split that its name contains, or None.
        load: Reads the records; called only if they are needed.
    """

    file: Path
    split: str | None
    load: Callable[[], Sequence[Record]]


@dataclass
class _Sample:
    """A row whose images may still be names of files."""

    record: Record
    images: tuple[str | ImageSource, ...]
    text: str
    label: int | None = None
    references: list[str] = field(default_factory=list)


def split_folders(path: Path) -> list[Path]:
    """Return the folders below a data folder whose names contain a split name."""
    return sorted(
        folder
        for folder in path.iterdir()
        if not folder.name.startswith(".") and folder.is_dir() and split_in_name(folder.name) is not None
    )


def split_of(file: Path, folder: Path) -> str | None:
    """Return the split in the name of a file or, below the data folder, in the name of the folder that holds it."""
    in_folder_name = split_in_name(file.parent.name) if file.parent != folder and folder.is_dir() else None
    return split_in_name(file.stem) or in_folder_name


def read_tables(
    path: Path,
    schema: Schema,
    splits: Collection[str],
    image_root: Path | None,
    *,
    layout: str,
    tables: Sequence[Table],
    notes: Sequence[str] = (),
) -> Dataset:
    """Read tables into a data set.

    A table without a split in its name is divided by its column "split"; without such a column, all its rows are train.

    Args:
        path: The path that the user gave.
        schema: The schema of the rows.
        splits: The splits to read; those that the data lack are left out.
        image_root: The image folder; None searches for the images around `path`.
        layout: Name of the layout.
        tables: All tables; only those that are needed are loaded.
        notes: Notes for the user so far.
    """
    has_val = any(table.split == "val" for table in tables)
    wanted = {*splits} if has_val or "val" not in splits else {*splits, "train"}
    parts, undivided = _load_parts(tables, wanted)
    has_val = has_val or "val" in parts
    needed = {*splits} if "val" in parts else wanted
    folder = (image_root or data_folder(path)).absolute()
    rows: dict[str, Sequence[Row]] = {
        split: _rows(parts[split], schema, folder, unanswered=split == "test")
        for split in SPLITS
        if split in needed and split in parts
    }
    all_notes = [*notes, *_undivided_note(undivided), *_unanswered_note(rows, schema)]
    if "train" in rows and not has_val:
        add_validation_split(rows, all_notes)
    kept = {split: rows[split] for split in SPLITS if split in splits and rows.get(split)}
    return Dataset(schema.name, f"{path} ({layout})", kept, all_notes)


def _load_parts(tables: Sequence[Table], wanted: Collection[str]) -> tuple[dict[str, list[Record]], list[Path]]:
    """The records of each split, and the tables that have neither a split in their name nor a column of splits."""
    parts: dict[str, list[Record]] = {}
    undivided: list[Path] = []
    for table in tables:
        if table.split is None or table.split in wanted:
            for split, of_split in _divide(table, table.load(), undivided).items():
                parts.setdefault(split, []).extend(of_split)
    return parts, undivided


def _undivided_note(files: Sequence[Path]) -> list[str]:
    if not files:
        return []
    name, more = files[0].name, len(files) - 1
    which = f"the names of {name} and {more} more files contain" if more else f"the name of {name} contains"
    return [f"{which} no split name: all rows are train; to evaluate on them, give --split train or val"]


def _divide(table: Table, records: Sequence[Record], undivided: list[Path]) -> dict[str, list[Record]]:
    column = columns.split_column([record.fields for record in records], _split_named, table.file)
    if column is None:
        if table.split is None:
            undivided.append(table.file)
        return {table.split or "train": list(records)}
    parts: dict[str, list[Record]] = {}
    for record in records:
        name = record.text(column)
        split = _split_named(name)
        if split is None:
            raise record.error(f"split {name!r} is unknown", "Write train, val or test.")
        if table.split not in (None, split):
            problem = f"the row is for {split}, and the name of the file says {table.split}"
            raise record.error(problem, "Remove the split from the name of the file, or remove the row.")
        parts.setdefault(split, []).append(record)
    return parts


def _split_named(name: str) -> str | None:
    name = name.strip().lower()
    return _SPLIT_NAMES.get(name) or split_in_name(name)


def _unanswered_note(rows: Mapping[str, Sequence[Row]], schema: Schema) -> list[str]:
    test = rows.get("test")
    return [NO_ANSWERS] if schema.answers and test and not test[0].references else []


def _rows(records: Sequence[Record], schema: Schema, folder: Path, *, unanswered: bool) -> list[Row]:
    """The rows of one split, in the order of their first records."""
    sampled = [record.fields for record in records[:: max(1, len(records) // SAMPLED_ROWS)]]
    names = list(dict.fromkeys(name for fields in sampled for name in fields))
    file = records[0].file
    columns.refuse_weights([record.fields for record in records], names, file)
    images_in = columns.image_columns(sampled, file_finder(folder, file))
    chosen = columns.choose(schema, names, images_in, file, unanswered=unanswered)
    samples = list(_joined([_sample(record, schema, chosen, folder) for record in records], schema))
    sources = _locate_images(samples, folder, _prefixes(file, folder))
    return [
        Row(
            f"{_prefix(sample.record.file.parent, folder)}{sample.record.file.stem}/{sample.record.row}",
            of_sample,
            sample.text,
            sample.label,
            references=tuple(sample.references),
        )
        for sample, of_sample in zip(samples, sources, strict=True)
    ]


def file_finder(folder: Path, table: Path) -> Callable[[str], bool]:
    """Return a function that tells whether an image of this name exists.

    It looks below the data folder and from the folder of the table on, and at no file outside them.

    Args:
        folder: The data folder, an absolute path.
        table: The file of the table.
    """
    image_folders = images.image_folders(folder)
    prefixes = _prefixes(table, folder)

    def exists(name: str) -> bool:
        relative = images.relative_name(name, folder)
        if not relative or images.leads_outside(relative) or len(relative) > 1_000:
            return False
        return any(
            candidate.has(path) for candidate in image_folders for path in [prefix + relative for prefix in prefixes]
        )

    return exists


def _prefixes(table: Path, folder: Path) -> list[str]:
    """What may stand before the images of a table: nothing, the folder of the table, and the folder of its split."""
    own, word = _prefix(table.parent, folder), split_word(table)
    split = f"{word}/" if word else ""
    return list(dict.fromkeys(("", own, split, own + split)))


def _prefix(subfolder: Path, folder: Path) -> str:
    """The path from the data folder to a folder below it, with a slash at its end; empty for all other folders."""
    inside = subfolder.absolute().is_relative_to(folder) and subfolder.absolute() != folder
    return f"{subfolder.absolute().relative_to(folder).as_posix()}/" if inside else ""


def _sample(record: Record, schema: Schema, chosen: ChosenColumns, folder: Path) -> _Sample:
    of_record = tuple(_image(record, name, folder) for name in chosen.images)
    if schema.has_captions:
        captions = _all_texts(record, chosen.text)
        return _Sample(record, of_record, captions[0], None, captions)
    text = record.text(chosen.text[0])
    if schema.label:
        return _Sample(record, of_record, text, _truth(record, chosen.answers[0]))
    return _Sample(record, of_record, text, None, _all_texts(record, chosen.answers))


def _all_texts(record: Record, names: Sequence[str]) -> list[str]:
    """The texts of several columns; some images have fewer captions than there are columns for captions."""
    filled = [name for name in names if record.fields.get(name) not in (None, "")] or names[:1]
    return [text for name in filled for text in _texts(record, name)]


def _image(record: Record, name: str, folder: Path) -> str | ImageSource:
    value = record.value(name)
    if not isinstance(value, str) and isinstance(value, ImageSource):
        return value
    return images.relative_name(record.text(name), folder)


def _truth(record: Record, name: str) -> int:
    value = record.value(name)
    return int(value) if value in ("0", "1") else record.truth(name)  # every cell of a CSV file is a text


def _texts(record: Record, name: str) -> list[str]:
    """The text of a cell, or the texts of a list, which may be written in JSON or Python syntax."""
    value = record.value(name)
    items = _parse_list(value) if isinstance(value, str) else value
    items = items if isinstance(items, list) else [items]
    values = [as_text(item.get("answer") if isinstance(item, dict) else item) for item in items]
    texts = [value.strip() for value in values if value and value.strip()]
    if not texts or len(texts) < len(values):
        raise record.error(f"field {name!r} must be a text or a list of texts", "Correct or remove the row.")
    return texts


def _parse_list(text: str) -> Any:
    if text.startswith("[") and len(text) <= _MAX_LIST_LENGTH:
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return text


def _joined(samples: Iterable[_Sample], schema: Schema) -> Iterable[_Sample]:
    """One sample per image with all its captions, or per image and question with all its answers."""
    if schema.reference is None:
        return samples
    joined: dict[tuple[object, ...], _Sample] = {}
    for sample in samples:
        key = sample.images if schema.has_captions else (*sample.images, sample.text)
        first = joined.setdefault(key, sample)
        if first is not sample:
            first.references.extend(sample.references)
    return joined.values()


def _locate_images(samples: Sequence[_Sample], folder: Path, prefixes: Sequence[str]) -> list[tuple[ImageSource, ...]]:
    """The images of each sample; files are searched below the data folder with each prefix."""
    requests = []
    for sample in samples:
        names = tuple(name for name in sample.images if isinstance(name, str))
        if names:
            alternatives = [tuple(prefix + name for name in names) for prefix in prefixes]
            requests.append(images.ImageNames(sample.record, tuple(alternatives)))
    located = iter(images.locate(requests, folder)) if requests else itertools.repeat(())
    return [
        next(located)
        if isinstance(sample.images[0], str)
        else tuple(image for image in sample.images if not isinstance(image, str))
        for sample in samples
    ]
