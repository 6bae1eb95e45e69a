"""VQAv2 as its authors publish it: per split a file of questions and a file of annotations; images have numbers.

v2_OpenEnded_mscoco_val2014_questions.json: {"data_subtype": "val2014", "questions": [{"image_id": ...,
"question": ..., "question_id": ...}, ...]}. v2_mscoco_val2014_annotations.json: {"annotations": [{"question_id":
..., "answers": [{"answer": ...}, ...]}, ...]} with the answers of ten people. The test split has no annotations.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import schemas
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.parsing import annotation_files, records
from madtp_cli.data.parsing.annotation_files import Matches, assign_splits, file_matches, split_word
from madtp_cli.data.parsing.building import ParsedRow, build_dataset
from madtp_cli.data.parsing.records import Record
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import DataError

LAYOUT = "official VQAv2 questions and annotations"
_SUBSET = re.compile(r"(train|val|test)(?:[-_](?:dev|std))?(\d{4})", re.IGNORECASE)


def recognises(path: Path, schema: Schema) -> bool:
    """Return whether a file is an object with a list of questions, or of annotations with answers."""
    return schema == schemas.QUESTIONS and annotation_files.any_file_matches(
        path, lambda fields: _is_questions(fields) or _is_annotations(fields)
    )


def read(path: Path, schema: Schema, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the requested splits; `path` may also be one file of a pair, whose partner is in the same folder."""
    questions, notes = assign_splits(*_files(path, _is_questions))
    annotations, _ = assign_splits(*_files(path, _is_annotations))
    if not questions:
        raise DataError(
            f"{path} holds annotations without their questions.\n"
            "Put the questions file of the same split into the same folder."
        )
    return build_dataset(
        path,
        schema,
        splits,
        image_root,
        layout=LAYOUT,
        available=questions,
        load=lambda split: _load(questions[split], annotations.get(split), split),
        notes=notes,
    )


def _files(path: Path, matches: Matches) -> tuple[list[Path], list[Path]]:
    """The files that may belong to one half of the pairs, and those that do; for a single file, it or its partner."""
    if path.is_dir():
        files = annotation_files.json_files(path)
    elif file_matches(path, matches):
        files = [path]
    else:
        word = split_word(path)
        in_folder = annotation_files.json_files(path.absolute().parent)
        files = [file for file in in_folder if split_word(file) == word]
    return files, [file for file in files if file_matches(file, matches)]


def _is_questions(fields: dict[str, Any]) -> bool:
    return _any_has(fields.get("questions"), {"question", "image_id"}, {"question", "question_id"})


def _is_annotations(fields: dict[str, Any]) -> bool:
    return _any_has(fields.get("annotations"), {"question_id", "answers"}, {"question_id", "multiple_choice_answer"})


def _any_has(items: object, *alternatives: set[str]) -> bool:
    """Whether an item of a list has all fields of one of the alternatives."""
    return isinstance(items, list) and any(
        isinstance(item, dict) and any(fields <= set(item) for fields in alternatives) for item in items
    )


def _load(questions: Path, annotations: Path | None, split: str) -> list[ParsedRow]:
    if annotations is None and split != "test":
        raise DataError(
            f"{questions} has no annotations file in its folder.\n"
            f"Add it; its name must contain the split, as in v2_mscoco_{split}2014_annotations.json."
        )
    answers = _answers(annotations) if annotations else None
    content = records.load_object(questions)
    subset = _SUBSET.search(str(content.get("data_subtype"))) or _SUBSET.search(questions.stem)
    folder = f"{subset[1]}{subset[2]}".lower() if subset else f"{split}2014"
    rows = []
    for record in records.records_in_list(questions, content, "questions"):
        number = record.number("question_id")
        if answers is not None and number not in answers:
            raise record.error(f"question {number} is not in {annotations}", "Use the file of the same split.")
        rows.append(_parse(record, folder, answers[number] if answers is not None else ()))
    return rows


def _parse(question: Record, folder: str, answers: tuple[str, ...]) -> ParsedRow:
    identifier = str(question.number("question_id"))
    image = f"COCO_{folder}_{question.number('image_id'):012}.jpg"
    image_names = ((f"{folder}/{image}",), (image,))
    return ParsedRow(question, identifier, image_names, question.text("question"), references=answers)


def _answers(file: Path) -> dict[int, tuple[str, ...]]:
    annotations = records.records_in_list(file, records.load_object(file), "annotations")
    return {annotation.number("question_id"): _answers_of(annotation) for annotation in annotations}


def _answers_of(annotation: Record) -> tuple[str, ...]:
    answers = annotation.value("answers")
    if not isinstance(answers, list) or not all(
        isinstance(answer, dict) and records.as_text(answer.get("answer")) is not None for answer in answers
    ):
        raise annotation.error("field 'answers' must be a list of {'answer': text}", "Correct or remove the row.")
    # Interned to save memory: four million answers are mostly a few thousand different texts. Some answers are blank.
    return tuple(sys.intern(answer) for answer in annotation.answers("answers"))
