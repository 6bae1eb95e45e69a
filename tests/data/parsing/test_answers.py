"""The answer list next to the annotations of VQA."""

from __future__ import annotations

import json
from typing import Any

import pytest

from madtp_cli import data
from madtp_cli.data.parsing.answers import ANSWER_LIST
from madtp_cli.scenes import splits
from madtp_cli.scenes.generator import answers
from madtp_cli.scenes.writing import write_scenes
from tests.data.readers.conftest import error_text, write
from tests.data.readers.test_blip_json import question, write_captions, write_vqa
from tests.data.readers.test_vqa_v2 import ANNOTATIONS, write_pair


def test_the_answer_list_of_the_scenes_is_read(tmp_path):
    """The written data have the same answers as the built-in data."""
    write_scenes(tmp_path / "vqa", "vqa", {"val": 2, "test": 2})
    found = data.read(tmp_path / "vqa", "questions")
    assert found.answers == tuple(answers()) == splits.read("vqa").answers


@pytest.mark.parametrize("subfolder", ["", "annotation"])
def test_both_vqa_layouts_have_an_answer_list(tmp_path, subfolder):
    """The answers keep the order of the file, and each is used once."""
    blip, official = write_vqa(tmp_path / "blip", "val", [question(0)]), write_pair(tmp_path / "vqa", "val2014")
    for folder in (blip, official):
        (folder / subfolder).mkdir(exist_ok=True)
        (folder / subfolder / ANSWER_LIST).write_text(json.dumps(["yes", "no", "yes", "2"]))
        assert data.read(folder, "questions").answers == ("yes", "no", "2")


def test_a_single_file_uses_the_list_in_its_folder(tmp_path):
    """A list in another folder is not used."""
    folder = write_pair(tmp_path, "val2014")
    write(folder / ANSWER_LIST, ["yes"])
    write(folder / "annotation" / "deeper" / ANSWER_LIST, ["no"])
    assert data.read(folder / ANNOTATIONS.format("val2014"), "questions").answers == ("yes",)


def test_without_a_list_there_are_no_answers(tmp_path):
    """Then a model generates answers. Captions never use an answer list."""
    assert data.read(write_vqa(tmp_path, "val", [question(0)]), "questions").answers == ()
    folder = write_captions(tmp_path / "coco", "val", [{"image": "1.jpg", "caption": ["a ring"]}])
    write(folder / "annotation" / ANSWER_LIST, ["yes"])
    assert data.read(folder, "captions").answers == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [([], "is empty"), (["yes", True], "item 2: True is not an answer"), (["yes", " "], "item 2: ' ' is not an answer"),
     ({"yes": 0}, "item 1: {'yes': 0} is not an answer"), ([["yes"]], "item 1")],
)  # fmt: skip
def test_a_broken_list_is_an_error(tmp_path, content: Any, message):
    """It must not be ranked or ignored without a message."""
    folder = write_vqa(tmp_path, "val", [question(0)])
    write(folder / "annotation" / ANSWER_LIST, content)
    text = error_text(folder, "questions")
    assert message in text
    assert ANSWER_LIST in text


def test_broken_json_is_reported_with_its_line(tmp_path):
    """This is the same as for annotation files."""
    folder = write_vqa(tmp_path, "val", [question(0)])
    (folder / "annotation" / ANSWER_LIST).write_text('["yes",\n "no"')
    assert "line 2" in error_text(folder, "questions")


def test_two_lists_are_an_error(tmp_path):
    """Which list was used would be unclear; giving the annotation file itself makes it clear."""
    folder = write_vqa(tmp_path, "val", [question(0)])
    write(folder / ANSWER_LIST, ["yes"])
    write(folder / "annotation" / ANSWER_LIST, ["no"])
    assert "Several files list the answers" in error_text(folder, "questions")
    assert data.read(folder / "annotation" / "vqa_val.json", "questions").answers == ("no",)


def test_an_answer_list_is_not_reported_as_a_broken_annotation_file(tmp_path):
    """It holds no records, which is correct."""
    write(tmp_path / ANSWER_LIST, ["yes"])
    assert ANSWER_LIST not in error_text(tmp_path, "questions")
