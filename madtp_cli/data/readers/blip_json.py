"""The annotation files of BLIP and ALBEF: a JSON list per split that names images by their paths.

Statements (NLVR2), nlvr_{train,dev,test}.json: {"sentence": ..., "label": "True", "images": [left, right]}.
Questions (VQA), vqa_{train,val,test}.json: {"image": ..., "question": ..., "question_id": ..., "answer": ten strings or
one}; test has no answers. VizWiz and VQAv2 on the hub have {"answers": [{"answer": ...}, ...]} instead.
Captions, coco_karpathy_{train,val,test}.json and flickr30k_{train,val,test}.json: {"image": ..., "caption": ...}; train
has one record per caption, the other splits have one record per image with a list of captions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.parsing.annotation_files import Matches, file_matches, json_files, split_word
from madtp_cli.data.parsing.building import ParsedRow, caption_row, read_annotation_files
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.schemas import Schema

LAYOUT = "BLIP annotation JSON"


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether one of the first records has the fields of the schema; for statements, all fields but one suffice.

    A file of captions or questions without a split in its name is an ordinary table, which another reader reads.
    """
    if schema not in _FORMATS:
        return False
    matches, _ = _FORMATS[schema]
    matching = [file for file in json_files(path) if file_matches(file, matches)]
    return any(schema == schemas.STATEMENTS or split_word(file) for file in matching)


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; those that the data lack are left out."""
    matches, parse = _FORMATS[schema]
    return read_annotation_files(path, schema, splits, image_root, layout=LAYOUT, matches=matches, parse=parse)


def _matches_statements(fields: dict[str, Any]) -> bool:
    # One field may be missing: then the file has an error, and not another layout.
    return "identifier" not in fields and len({"sentence", "images", "label"} & set(fields)) >= 2


def _parse_statement(record: Record) -> ParsedRow:
    images = record.value("images")
    if not (isinstance(images, list) and len(images) == 2 and all(isinstance(name, str) and name for name in images)):
        raise record.error("field 'images' must hold two paths", "Correct or remove the row.")
    identifier = f"{record.file.stem}/{record.row}"
    return ParsedRow(record, identifier, (tuple(images),), record.text("sentence"), record.truth("label"))


def _matches_questions(fields: dict[str, Any]) -> bool:
    # Each of BLIP's files holds one split; rows that name their split have another layout.
    return {"image", "question"} <= set(fields) and "split" not in fields


def _parse_question(record: Record) -> ParsedRow:
    # Interned to save memory: ten million answers are mostly a few thousand different texts.
    name = next((name for name in _ANSWERS if name in record.fields), None)
    answers = tuple(map(sys.intern, record.answers(name))) if name else ()
    identifier = str(record.fields.get("question_id", f"{record.file.stem}/{record.row}"))
    return ParsedRow(record, identifier, _image_names(record), record.text("question"), references=answers)


def _matches_captions(fields: dict[str, Any]) -> bool:
    return {"image", "caption"} <= set(fields) and "split" not in fields


def _parse_caption(record: Record) -> ParsedRow:
    return caption_row(record, _image_names(record), record.texts("caption"))


def _image_names(record: Record) -> tuple[tuple[str, ...], ...]:
    """The path of the image, and the same in a folder named like the split, as VizWiz has them."""
    name, folder = record.text("image"), split_word(record.file)
    return ((name,), (f"{folder}/{name}",)) if folder else ((name,),)


#: Fields of answers; the answers of ten people come before the one that is chosen from them.
_ANSWERS = ("answers", "answer", "multiple_choice_answer")
_FORMATS: dict[Schema, tuple[Matches, Callable[[Record], ParsedRow]]] = {
    schemas.STATEMENTS: (_matches_statements, _parse_statement),
    schemas.QUESTIONS: (_matches_questions, _parse_question),
    schemas.CAPTIONS: (_matches_captions, _parse_caption),
}
