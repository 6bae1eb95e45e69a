"""The annotation files of BLIP and ALBEF: a JSON list per split, images named by path.

NLVR2: nlvr_train.json, nlvr_dev.json, nlvr_test.json with rows
{"sentence": ..., "label": "True", "images": [left, right]}.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import records
from madtp_cli.data.assembling import Draft, assemble
from madtp_cli.data.records import Record
from madtp_cli.data.rows import Dataset

LAYOUT = "BLIP annotation JSON"


def recognises(path: Path, task: str) -> bool:
    """Whether a first record has a sentence, images and a label, or all but one of them."""
    return task in _TASKS and records.recognises(path, _TASKS[task][0])


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there."""
    fits, draft = _TASKS[task]
    return assemble(path, task, splits, image_root, layout=LAYOUT, fits=fits, draft=draft)


def _fits_nlvr2(fields: dict[str, Any]) -> bool:
    # One may be missing: that is an error to report, and no other layout.
    return "identifier" not in fields and len({"sentence", "images", "label"} & set(fields)) >= 2


def _draft_nlvr2(record: Record) -> Draft:
    images = record.value("images")
    if not (isinstance(images, list) and len(images) == 2 and all(isinstance(name, str) and name for name in images)):
        raise record.error("field 'images' must hold two paths", "Correct the row, or remove it.")
    identifier = f"{record.file.stem}/{record.row}"
    return Draft(identifier, (tuple(images),), record.text("sentence"), record.truth("label"))


_TASKS: dict[str, tuple[Callable[[dict[str, Any]], bool], Callable[[Record], Draft]]] = {
    "nlvr2": (_fits_nlvr2, _draft_nlvr2),
}
