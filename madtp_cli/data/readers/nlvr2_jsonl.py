"""NLVR2 as its authors publish it: JSON lines, images named by the row's identifier.

Row "dev-850-0-1" is the second sentence about dev-850-0-img0.png and dev-850-0-img1.png.
Train images lie in numbered folders, `directory` in the row.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import records
from madtp_cli.data.assembling import Draft, assemble
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Record

LAYOUT = "official NLVR2 JSON lines"


def recognises(path: Path, task: str) -> bool:
    """Whether a first record has an identifier, and a sentence or a label."""
    return task == "nlvr2" and records.recognises(path, _fits)


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there."""
    return assemble(path, task, splits, image_root, layout=LAYOUT, fits=_fits, draft=_draft)


def _fits(fields: dict[str, Any]) -> bool:
    return "identifier" in fields and bool({"sentence", "label"} & set(fields))


def _draft(record: Record) -> Draft:
    identifier = record.text("identifier")
    stem, _, sentence = identifier.rpartition("-")
    if not stem or not sentence.isdigit():
        raise record.error(f"identifier {identifier!r} does not end in a number", "Correct the row, or remove it.")
    split = stem.partition("-")[0]
    folders = [f"{split}/", ""]
    if "directory" in record.fields:
        folders.insert(0, f"{split}/{record.fields['directory']}/")
    names = tuple(tuple(f"{folder}{stem}-img{side}.png" for side in (0, 1)) for folder in folders)
    return Draft(identifier, names, record.text("sentence"), record.truth("label"))
