"""Official VQAv2: questions and annotations, joined by the number of the question."""

from __future__ import annotations

from typing import Any

import pytest

from madtp_cli import data
from tests.data.readers.conftest import error_text, layouts, names, write

QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
ANNOTATIONS = "v2_mscoco_{}_annotations.json"


def questions(subset: str, number: int = 4) -> dict[str, Any]:
    """Return the questions as published, two about each image."""
    return {
        "info": {"version": "2.0"},
        "data_subtype": subset,
        "questions": [
            {"image_id": 9 + n // 2, "question": f"What is {n}?", "question_id": 90 + n} for n in range(number)
        ],
    }


def answered(subset: str, number: int = 4) -> dict[str, Any]:
    """Return their annotations in another order: nine answers "yes", one the number of the question."""
    rows = []
    for n in reversed(range(number)):
        answers = [{"answer": "yes", "answer_confidence": "maybe", "answer_id": i} for i in range(1, 10)]
        answers.append({"answer": str(n), "answer_confidence": "no", "answer_id": 10})
        rows.append(
            {"question_id": 90 + n, "image_id": 9 + n // 2, "answers": answers, "multiple_choice_answer": "yes"}
        )
    return {"annotations": rows, "data_subtype": subset}


def write_pair(folder, subset, *, images="{}/"):
    """Write the two files of a split; the images are in a folder with the name of the split or elsewhere."""
    pictures = [f"{images.format(subset)}COCO_{subset}_{number:012}.jpg" for number in (9, 10)]
    write(folder / QUESTIONS.format(subset), questions(subset), pictures)
    return write(folder / ANNOTATIONS.format(subset), answered(subset))


@pytest.mark.parametrize("images", ["{}/", "images/{}/", "images/", ""])
def test_questions_and_annotations_are_joined_by_question_id(tmp_path, images):
    """The two files may have different orders; the number of an image gives its name."""
    write_pair(tmp_path, "train2014", images=images)
    found = data.read(write_pair(tmp_path, "val2014", images=images), "questions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 4, "val": 4}
    row = found.split("val")[3]
    assert (row.identifier, row.text, row.references) == ("93", "What is 3?", ("yes",) * 9 + ("3",))
    assert names(found.split("val")) == [f"COCO_val2014_{number:012}.jpg" for number in (9, 9, 10, 10)]
    assert names(found.split("train"))[0] == "COCO_train2014_000000000009.jpg"


def test_no_other_reader_recognises_the_folder(tmp_path):
    """Two matching readers would be an error."""
    assert layouts(write_pair(tmp_path, "val2014"), "questions") == ["official VQAv2 questions and annotations"]


@pytest.mark.parametrize("pattern", [QUESTIONS, ANNOTATIONS])
def test_path_may_be_one_file_of_a_pair(tmp_path, pattern):
    """The partner in the same folder is used, and other splits are not."""
    write_pair(tmp_path, "train2014")
    write_pair(tmp_path, "val2014")
    if pattern == QUESTIONS:
        write(
            tmp_path / "OpenEnded_mscoco_val2014_questions.json", questions("val2014", 1)
        )  # a file of the first version of VQA
    found = data.read(tmp_path / pattern.format("val2014"), "questions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"val": 4}
    assert found.split("val")[0].references[-1] == "0"


def test_the_test_split_needs_no_annotations(tmp_path):
    """Its answers were never published. "test-dev" is a part of it, with the same images."""
    for subset in ("test2015", "test-dev2015"):
        write(tmp_path / QUESTIONS.format(subset), questions(subset, 2), ["test2015/COCO_test2015_000000000009.jpg"])
    found = data.read(tmp_path, "questions")
    assert [row.references for row in found.split("test")] == [(), ()]
    left_out = QUESTIONS.format("test-dev2015")
    assert f"{left_out} not used" in found.notes[0]
    assert "the test split has no answers" in found.notes[1]
    part = data.read(tmp_path / left_out, "questions").split("test")
    assert names(part) == ["COCO_test2015_000000000009.jpg"] * 2


@pytest.mark.parametrize("subset", ["train2014", "val2014"])
def test_questions_without_annotations_are_an_error(tmp_path, subset):
    """The message names the missing file."""
    folder = write_pair(tmp_path, subset)
    (folder / ANNOTATIONS.format(subset)).unlink()
    text = error_text(folder, "questions")
    assert f"{QUESTIONS.format(subset)} has no annotations file in its folder" in text
    assert f"v2_mscoco_{subset}_annotations.json" in text


def test_annotations_without_questions_are_an_error(tmp_path):
    """There would be nothing to answer."""
    folder = write_pair(tmp_path, "val2014")
    (folder / QUESTIONS.format("val2014")).unlink()
    assert "holds annotations without their questions" in error_text(folder, "questions")


def test_only_the_requested_splits_are_read(tmp_path):
    """Incomplete train annotations must not prevent a validation."""
    write_pair(tmp_path, "val2014")
    write_pair(tmp_path, "train2014")
    cut = '{"annotations": [{"question_id": 90, "answers": ['
    (tmp_path / ANNOTATIONS.format("train2014")).write_text(cut)
    assert len(data.read(tmp_path, "questions", ["val"]).split("val")) == 4
    assert f"{ANNOTATIONS.format('train2014')} is broken: line 1, column {len(cut) + 1}:" in error_text(
        tmp_path, "questions"
    )


def test_a_question_without_annotation_is_named(tmp_path):
    """Usually the annotations belong to another split or version."""
    write_pair(tmp_path, "val2014")
    write(tmp_path / ANNOTATIONS.format("val2014"), answered("val2014", 2))
    assert "questions row 3: question 92 is not in" in error_text(tmp_path, "questions")


@pytest.mark.parametrize("answers", [None, "yes", ["yes"], [{"answer": True}], [{}]])
def test_annotations_must_hold_answers(tmp_path, answers):
    """A list of strings would be the layout of BLIP."""
    content = answered("val2014")
    content["annotations"][1]["answers"] = answers
    write_pair(tmp_path, "val2014")
    write(tmp_path / ANNOTATIONS.format("val2014"), content)
    assert "annotations row 2: field 'answers' must be a list" in error_text(tmp_path, "questions")


def test_ten_blank_answers_are_no_answer(tmp_path):
    """This is the same as in the files of BLIP; the error names the row of the question."""
    content = answered("val2014")
    content["annotations"][0]["answers"] = [{"answer": " "}]
    write_pair(tmp_path, "val2014")
    write(tmp_path / ANNOTATIONS.format("val2014"), content)
    assert "questions row 4: the row has no answer" in error_text(tmp_path, "questions")


@pytest.mark.parametrize("field", ["image_id", "question_id"])
@pytest.mark.parametrize("value", ["../9", -1, 1.5, True, None])
def test_numbers_must_be_whole_numbers(tmp_path, field, value):
    """They become part of a path, and join the two files."""
    content = questions("val2014")
    content["questions"][1][field] = value
    write_pair(tmp_path, "val2014")
    write(tmp_path / QUESTIONS.format("val2014"), content)
    assert f"questions row 2: field '{field}' is {value!r}" in error_text(tmp_path, "questions")


def test_a_missing_list_is_an_error(tmp_path):
    """The file is recognised by its name and contains no questions."""
    write_pair(tmp_path, "train2014")
    write_pair(tmp_path, "val2014")
    write(tmp_path / QUESTIONS.format("val2014"), {"info": {}, "questions": []})
    assert "has no list 'questions' with records (fields: info, questions)" in error_text(tmp_path, "questions")


def test_the_names_of_images_come_from_data_subtype(tmp_path):
    """Users rename files; the year in the names of the images stays in `data_subtype`."""
    write_pair(tmp_path, "test2015")
    for pattern, name in ((QUESTIONS, "questions_test.json"), (ANNOTATIONS, "annotations_test.json")):
        (tmp_path / pattern.format("test2015")).rename(tmp_path / name)
    assert names(data.read(tmp_path, "questions").split("test"))[0] == "COCO_test2015_000000000009.jpg"
