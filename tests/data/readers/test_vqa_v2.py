"""Official VQAv2: questions and annotations, joined by the question's number."""

from __future__ import annotations

from typing import Any

import pytest

from madtp_cli import data
from tests.data.readers.conftest import complaint, names, write

QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
ANNOTATIONS = "v2_mscoco_{}_annotations.json"


def questions(subset: str, number: int = 4) -> dict[str, Any]:
    """The questions as published, two about each image."""
    return {
        "info": {"version": "2.0"},
        "data_subtype": subset,
        "questions": [
            {"image_id": 9 + n // 2, "question": f"What is {n}?", "question_id": 90 + n} for n in range(number)
        ],
    }


def answered(subset: str, number: int = 4) -> dict[str, Any]:
    """Their annotations, in another order: nine say "yes", one the question's number."""
    rows = []
    for n in reversed(range(number)):
        answers = [{"answer": "yes", "answer_confidence": "maybe", "answer_id": i} for i in range(1, 10)]
        answers.append({"answer": str(n), "answer_confidence": "no", "answer_id": 10})
        rows.append(
            {"question_id": 90 + n, "image_id": 9 + n // 2, "answers": answers, "multiple_choice_answer": "yes"}
        )
    return {"annotations": rows, "data_subtype": subset}


def write_pair(folder, subset, *, images="{}/"):
    """A split as people have it; the images in a folder of the split's name or elsewhere."""
    pictures = [f"{images.format(subset)}COCO_{subset}_{number:012}.jpg" for number in (9, 10)]
    write(folder / QUESTIONS.format(subset), questions(subset), pictures)
    return write(folder / ANNOTATIONS.format(subset), answered(subset))


@pytest.mark.parametrize("images", ["{}/", "images/{}/", "images/", ""])
def test_a_pair_is_joined_by_the_number_of_the_question(tmp_path, images):
    """The two files need not have one order, and the image's number makes its name."""
    write_pair(tmp_path, "train2014", images=images)
    found = data.read(write_pair(tmp_path, "val2014", images=images), "vqa")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 4, "val": 4}
    row = found.split("val")[3]
    assert (row.identifier, row.text, row.references) == ("93", "What is 3?", ("yes",) * 9 + ("3",))
    assert names(found.split("val")) == [f"COCO_val2014_{number:012}.jpg" for number in (9, 9, 10, 10)]
    assert names(found.split("train"))[0] == "COCO_train2014_000000000009.jpg"


def test_nothing_else_claims_the_folder(tmp_path):
    """Two readers would make it unreadable."""
    (reader,) = data.fitting(write_pair(tmp_path, "val2014"), "vqa")
    assert reader.LAYOUT == "official VQAv2 questions and annotations"


@pytest.mark.parametrize("given", [QUESTIONS, ANNOTATIONS])
def test_one_file_of_a_pair_can_be_given(tmp_path, given):
    """The other lies beside it; other splits stay out."""
    write_pair(tmp_path, "train2014")
    write_pair(tmp_path, "val2014")
    if given == QUESTIONS:
        write(tmp_path / "OpenEnded_mscoco_val2014_questions.json", questions("val2014", 1))  # the first VQA's
    found = data.read(tmp_path / given.format("val2014"), "vqa")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"val": 4}
    assert found.split("val")[0].references[-1] == "0"


def test_the_test_split_has_no_annotations(tmp_path):
    """Its answers were never published. "test-dev" is a part of it, with the same images."""
    for subset in ("test2015", "test-dev2015"):
        write(tmp_path / QUESTIONS.format(subset), questions(subset, 2), ["test2015/COCO_test2015_000000000009.jpg"])
    found = data.read(tmp_path, "vqa")
    assert [row.references for row in found.split("test")] == [(), ()]
    left_out = QUESTIONS.format("test-dev2015")
    assert f"{left_out} left out" in found.notes[0]
    assert "the test split has no answers" in found.notes[1]
    part = data.read(tmp_path / left_out, "vqa").split("test")
    assert names(part) == ["COCO_test2015_000000000009.jpg"] * 2


@pytest.mark.parametrize("subset", ["train2014", "val2014"])
def test_questions_without_annotations_are_refused(tmp_path, subset):
    """Half of the pair was forgotten; the name of the other half is told."""
    folder = write_pair(tmp_path, subset)
    (folder / ANNOTATIONS.format(subset)).unlink()
    text = complaint(folder, "vqa")
    assert f"{QUESTIONS.format(subset)} has no annotations file beside it" in text
    assert f"v2_mscoco_{subset}_annotations.json" in text


def test_annotations_without_questions_are_refused(tmp_path):
    """There is nothing to ask."""
    folder = write_pair(tmp_path, "val2014")
    (folder / QUESTIONS.format("val2014")).unlink()
    assert "holds annotations without their questions" in complaint(folder, "vqa")


def test_only_what_is_asked_for_is_read(tmp_path):
    """Train annotations that were cut off in the download must not stop a validation."""
    write_pair(tmp_path, "val2014")
    write_pair(tmp_path, "train2014")
    cut = '{"annotations": [{"question_id": 90, "answers": ['
    (tmp_path / ANNOTATIONS.format("train2014")).write_text(cut)
    assert len(data.read(tmp_path, "vqa", ["val"]).split("val")) == 4
    assert f"{ANNOTATIONS.format('train2014')} is broken: line 1, column {len(cut) + 1}:" in complaint(tmp_path, "vqa")


def test_a_question_that_nobody_answered_is_named(tmp_path):
    """Usually the annotations are those of another split or version."""
    write_pair(tmp_path, "val2014")
    write(tmp_path / ANNOTATIONS.format("val2014"), answered("val2014", 2))
    assert "questions row 3: question 92 is not in" in complaint(tmp_path, "vqa")


@pytest.mark.parametrize("answers", [None, "yes", ["yes"], [{"answer": 2}], [{}]])
def test_annotations_hold_answers(tmp_path, answers):
    """A list of strings would be BLIP's layout."""
    content = answered("val2014")
    content["annotations"][1]["answers"] = answers
    write_pair(tmp_path, "val2014")
    write(tmp_path / ANNOTATIONS.format("val2014"), content)
    assert "annotations row 2: field 'answers' must be a list" in complaint(tmp_path, "vqa")


def test_ten_empty_answers_are_none(tmp_path):
    """As in BLIP's files; the row of the question is told."""
    content = answered("val2014")
    content["annotations"][0]["answers"] = [{"answer": " "}]
    write_pair(tmp_path, "val2014")
    write(tmp_path / ANNOTATIONS.format("val2014"), content)
    assert "questions row 4: the row has no answer" in complaint(tmp_path, "vqa")


@pytest.mark.parametrize("field", ["image_id", "question_id"])
@pytest.mark.parametrize("value", ["../9", -1, 1.5, True, None])
def test_numbers_are_numbers(tmp_path, field, value):
    """They become part of a path, and join the files."""
    content = questions("val2014")
    content["questions"][1][field] = value
    write_pair(tmp_path, "val2014")
    write(tmp_path / QUESTIONS.format("val2014"), content)
    assert f"questions row 2: field '{field}' is {value!r}" in complaint(tmp_path, "vqa")


def test_a_missing_list_is_told(tmp_path):
    """The file was recognised by its beginning, and ends there."""
    write_pair(tmp_path, "train2014")
    write_pair(tmp_path, "val2014")
    write(tmp_path / QUESTIONS.format("val2014"), {"info": {}, "questions": []})
    assert "has no list 'questions' with records (fields: info, questions)" in complaint(tmp_path, "vqa")


def test_images_are_named_by_what_the_file_says_of_itself(tmp_path):
    """Files are renamed; the year in the images' names stays in `data_subtype`."""
    write_pair(tmp_path, "test2015")
    for pattern, name in ((QUESTIONS, "questions_test.json"), (ANNOTATIONS, "annotations_test.json")):
        (tmp_path / pattern.format("test2015")).rename(tmp_path / name)
    assert names(data.read(tmp_path, "vqa").split("test"))[0] == "COCO_test2015_000000000009.jpg"
