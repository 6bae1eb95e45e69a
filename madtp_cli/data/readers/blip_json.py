"""The annotation files of BLIP and ALBEF: a JSON list per split, images named by path.

NLVR2, nlvr_{train,dev,test}.json: {"sentence": ..., "label": "True", "images": [left, right]}.
VQA, vqa_{train,val,test}.json: {"image": ..., "question": ..., "question_id": ..., "answer": ten strings or one};
test has no answers.
Captions and retrieval, coco_karpathy_{train,val,test}.json and flickr30k_{train,val,test}.json: {"image": ...,
"caption": ...}, in train one record for each caption, elsewhere one for each image with the list of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import records
from madtp_cli.data.assembling import Draft, assemble, captioned
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Fits, Record

LAYOUT = "BLIP annotation JSON"


def recognises(path: Path, task: str) -> bool:
    """Whether one of the first records has the fields of the task; for NLVR2, all but one of them.

    A file of captions or questions whose name tells no split is a table like any other.
    """
    if task not in _TASKS:
        return False
    fitting = [file for file in records.files(path) if records.opens(file, _TASKS[task][0])]
    return any(task == "nlvr2" or records.split_word(file) for file in fitting)


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


def _fits_vqa(fields: dict[str, Any]) -> bool:
    # BLIP's files have one split each; rows that tell their own are another layout's.
    return {"image", "question"} <= set(fields) and not {"split", "answers"} & set(fields)


def _draft_vqa(record: Record) -> Draft:
    # Interned: most of ten million answers are a few thousand.
    answers = tuple(map(sys.intern, record.texts("answer"))) if "answer" in record.fields else ()
    identifier = record.fields.get("question_id", f"{record.file.stem}/{record.row}")
    return Draft(str(identifier), ((record.text("image"),),), record.text("question"), references=answers)


def _fits_captions(fields: dict[str, Any]) -> bool:
    return {"image", "caption"} <= set(fields) and "split" not in fields


def _draft_captions(record: Record) -> Draft:
    return captioned(((record.text("image"),),), record.texts("caption"))


_TASKS: dict[str, tuple[Fits, Callable[[Record], Draft]]] = {
    "nlvr2": (_fits_nlvr2, _draft_nlvr2),
    "vqa": (_fits_vqa, _draft_vqa),
    "caption": (_fits_captions, _draft_captions),
    "retrieval": (_fits_captions, _draft_captions),
}
