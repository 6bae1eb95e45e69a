"""Builds a data set from the records of annotation files, for all readers of such files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from madtp_cli.data import images
from madtp_cli.data.dataset import SPLITS, Dataset, Row
from madtp_cli.data.parsing import columns, records
from madtp_cli.data.parsing.annotation_files import Matches, data_folder, files_by_split, split_in_name
from madtp_cli.data.parsing.answers import read_answer_list
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.schemas import Schema
from madtp_cli.data.validation_split import add_validation_split

#: Rows that are searched for a column of weights.
WEIGHTS_SAMPLED = 50


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A row whose image files have not been searched yet.

    Args:
        record: The record it was made from, for error messages.
        identifier: As in `Row`, like the last three.
        image_names: For each possible folder structure, one path per image.
        text: The text.
        label: The label.
        references: The references.
    """

    record: Record
    identifier: str
    image_names: tuple[tuple[str, ...], ...]
    text: str
    label: int | None = None
    references: tuple[str, ...] = ()


def caption_row(record: Record, image_names: tuple[tuple[str, ...], ...], captions: tuple[str, ...]) -> ParsedRow:
    """Return the row of an image with its captions; the name of the image is the identifier of the row."""
    text = captions[0] if captions else ""
    return ParsedRow(record, image_names[0][0], image_names, text, references=captions)


def read_annotation_files(
    path: Path,
    schema: Schema,
    splits: Collection[str],
    image_root: Path | None,
    *,
    layout: str,
    matches: Matches,
    parse: Callable[[Record], ParsedRow],
) -> Dataset:
    """Read a layout that has one annotation file per split, with the split in the name of the file.

    Args:
        path: A data folder or one annotation file.
        schema: The schema of the rows.
        splits: The splits to read; those that the data lack are left out.
        image_root: The image folder; None searches for the images around `path`.
        layout: Name of the layout.
        matches: Whether one of the first records of a file shows this layout.
        parse: Makes a row of a record.
    """
    files, notes = files_by_split(path, matches)

    def load(split: str) -> list[ParsedRow]:
        return [parse(_require_split(record, split)) for record in records.load(files[split])]

    return build_dataset(path, schema, splits, image_root, layout=layout, available=files, load=load, notes=notes)


def _require_split(record: Record, split: str) -> Record:
    """The record; an error if its own field names another split than the file."""
    named = split_in_name(str(record.fields.get("split") or ""))
    if named not in (None, split):
        problem = f"the row is for {named}, and the name of the file says {split}"
        raise record.error(problem, "Remove the split from the name of the file, or remove the row.")
    return record


def build_dataset(
    path: Path,
    schema: Schema,
    splits: Collection[str],
    image_root: Path | None,
    *,
    layout: str,
    available: Collection[str],
    load: Callable[[str], Iterable[ParsedRow]],
    notes: list[str],
) -> Dataset:
    """Build a data set from parsed rows: find the images, and hold out a validation split if the data have none.

    Args:
        path, schema, splits, image_root, layout: As for `read_annotation_files`.
        available: The splits that the data have.
        load: Returns the rows of a split; called only for the splits that are needed.
        notes: Notes for the user so far.

    Raises:
        DataError: A row lacks references, an image path is not allowed, or the answer list is broken.
    """
    hold_out = "val" not in available and "train" in available
    needed = {split for split in available if split in splits or (hold_out and split == "train" and "val" in splits)}
    rows: dict[str, Sequence[Row]] = {}
    for split in SPLITS:
        if split in needed:
            parsed = _join_captions(load(split)) if schema.has_captions else list(load(split))
            _refuse_weights([row.record for row in parsed])
            _check_references(parsed, schema, split, notes)
            rows[split] = _locate_images(parsed, image_root or data_folder(path))
    if hold_out and "train" in rows:
        add_validation_split(rows, notes)
    kept = {split: rows[split] for split in SPLITS if split in splits and rows.get(split)}
    return Dataset(schema.name, f"{path} ({layout})", kept, notes, read_answer_list(path) if schema.answers else ())


def _join_captions(rows: Iterable[ParsedRow]) -> list[ParsedRow]:
    """One row per image with all its captions, in the order of the first row of each image."""
    records_of: dict[tuple[tuple[str, ...], ...], Record] = {}
    captions: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for row in rows:
        records_of.setdefault(row.image_names, row.record)
        captions.setdefault(row.image_names, []).extend(row.references)
    return [caption_row(record, names, tuple(captions[names])) for names, record in records_of.items()]


def _check_references(rows: Sequence[ParsedRow], schema: Schema, split: str, notes: list[str]) -> None:
    """Require references, except for a test split without any answers: its answers are kept on a server."""
    if schema.reference is None:
        return
    without = [row.record for row in rows if not row.references]
    if without and schema.answers and split == "test" and len(without) == len(rows):
        notes.append("the test split has no answers: a model can answer its questions, but they cannot be scored")
    elif without:
        raise without[0].error(f"the row has no {schema.reference}", f"Add one {schema.reference}, or remove the row.")


def _refuse_weights(of_split: Sequence[Record]) -> None:
    if of_split:
        names = dict.fromkeys(name for record in of_split[:WEIGHTS_SAMPLED] for name in record.fields)
        columns.refuse_weights([record.fields for record in of_split], list(names), of_split[0].file)


def _locate_images(rows: Sequence[ParsedRow], folder: Path) -> list[Row]:
    sources = images.locate([images.ImageNames(row.record, row.image_names) for row in rows], folder)
    return [
        Row(row.identifier, of_row, row.text, row.label, references=row.references)
        for row, of_row in zip(rows, sources, strict=True)
    ]
