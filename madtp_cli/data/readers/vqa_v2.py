"""VQAv2 as its authors publish it: a file of questions and a file of annotations per split, images named by number.

v2_OpenEnded_mscoco_val2014_questions.json: {"data_subtype": "val2014", "questions": [{"image_id": ...,
"question": ..., "question_id": ...}, ...]}. v2_mscoco_val2014_annotations.json: {"annotations": [{"question_id":
..., "answers": [{"answer": ...}, ...]}, ...]} with the answers of ten people; for the test split there is none.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from madtp_cli.data import records
from madtp_cli.data.assembling import Draft, Drafted, gather
from madtp_cli.data.dataset import Dataset
from madtp_cli.data.records import Fits, Record
from madtp_cli.errors import DataError

LAYOUT = "official VQAv2 questions and annotations"
_SUBSET = re.compile(r"(train|val|test)(?:[-_](?:dev|std))?(\d{4})", re.IGNORECASE)


def recognises(path: Path, task: str) -> bool:
    """Whether a file is an object with a list of questions, or of annotations with answers."""
    return task == "vqa" and records.recognises(path, lambda fields: _is_questions(fields) or _is_annotations(fields))


def read(path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
    """Read the splits that are asked for and there; of a pair, one file may be given."""
    questions, notes = records.by_split(*_files(path, _is_questions))
    annotations, _ = records.by_split(*_files(path, _is_annotations))
    if not questions:
        raise DataError(
            f"{path} holds annotations without their questions.\nPut the questions file of the same split beside them."
        )
    return gather(
        path,
        task,
        splits,
        image_root,
        layout=LAYOUT,
        there=questions,
        drafted=lambda split: _drafted(questions[split], annotations.get(split), split),
        notes=notes,
    )


def _files(path: Path, fits: Fits) -> tuple[list[Path], list[Path]]:
    """The files that may hold one half of the pairs, and those that do; for a given file only itself or its partner."""
    if path.is_dir():
        every = records.files(path)
    elif records.opens(path, fits):
        every = [path]
    else:
        word = records.split_word(path)
        every = [file for file in records.files(path.absolute().parent) if records.split_word(file) == word]
    return every, [file for file in every if records.opens(file, fits)]


def _is_questions(fields: dict[str, Any]) -> bool:
    return _any_has(fields.get("questions"), {"question", "image_id"}, {"question", "question_id"})


def _is_annotations(fields: dict[str, Any]) -> bool:
    return _any_has(fields.get("annotations"), {"question_id", "answers"}, {"question_id", "multiple_choice_answer"})


def _any_has(items: object, *shapes: set[str]) -> bool:
    return isinstance(items, list) and any(
        isinstance(item, dict) and any(shape <= set(item) for shape in shapes) for item in items
    )


def _drafted(questions: Path, annotations: Path | None, split: str) -> list[Drafted]:
    if annotations is None and split != "test":
        raise DataError(
            f"{questions} has no annotations file beside it.\n"
            f"Put it there; its name must tell the split, as in v2_mscoco_{split}2014_annotations.json."
        )
    answers = _answers(annotations) if annotations else None
    content = records.load_object(questions)
    subset = _SUBSET.search(str(content.get("data_subtype"))) or _SUBSET.search(questions.stem)
    folder = f"{subset[1]}{subset[2]}".lower() if subset else f"{split}2014"
    drafted = []
    for record in records.part(questions, content, "questions"):
        identifier = record.number("question_id")
        if answers is not None and identifier not in answers:
            raise record.error(f"question {identifier} is not in {annotations}", "Take the file of the same split.")
        name = f"COCO_{folder}_{record.number('image_id'):012}.jpg"
        names = ((f"{folder}/{name}",), (name,))
        given = answers[identifier] if answers is not None else ()
        drafted.append((record, Draft(str(identifier), names, record.text("question"), references=given)))
    return drafted


def _answers(file: Path) -> dict[int, tuple[str, ...]]:
    annotations = records.part(file, records.load_object(file), "annotations")
    return {annotation.number("question_id"): _given(annotation) for annotation in annotations}


def _given(annotation: Record) -> tuple[str, ...]:
    answers = annotation.value("answers")
    if not isinstance(answers, list) or not all(
        isinstance(answer, dict) and isinstance(answer.get("answer"), str) for answer in answers
    ):
        raise annotation.error("field 'answers' must be a list of {'answer': words}", "Correct the row, or remove it.")
    # Interned: most of four million answers are a few thousand. Some of the ten people wrote nothing.
    return tuple(sys.intern(answer["answer"]) for answer in answers if answer["answer"].strip())
