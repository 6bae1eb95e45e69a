"""NLVR2 as its authors publish it: JSON lines; the identifier of a row contains the names of its images.

Row "dev-850-0-1" is the second sentence about dev-850-0-img0.png and dev-850-0-img1.png. Train images are in numbered
folders; the row names its folder in the field `directory`.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.parsing.annotation_files import any_file_matches
from madtp_cli.data.parsing.building import ParsedRow, read_annotation_files
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.schemas import Schema

LAYOUT = "official NLVR2 JSON lines"


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether one of the first records has an identifier, and a sentence or a label."""
    return schema == schemas.STATEMENTS and any_file_matches(path, _matches)


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out."""
    return read_annotation_files(path, schema, splits, image_root, layout=LAYOUT, matches=_matches, parse=_parse)


def _matches(fields: dict[str, Any]) -> bool:
    return "identifier" in fields and bool({"sentence", "label"} & set(fields))


def _parse(record: Record) -> ParsedRow:
    identifier = record.text("identifier")
    stem, _, sentence = identifier.rpartition("-")
    if not stem or not sentence.isdigit():
        raise record.error(f"identifier {identifier!r} does not end in a number", "Correct or remove the row.")
    split = stem.partition("-")[0]
    folders = [f"{split}/", ""]
    if "directory" in record.fields:
        folders.insert(0, f"{split}/{record.fields['directory']}/")
    image_names = tuple(tuple(f"{folder}{stem}-img{side}.png" for side in (0, 1)) for folder in folders)
    return ParsedRow(record, identifier, image_names, record.text("sentence"), record.truth("label"))
