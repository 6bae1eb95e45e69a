"""The list of answers beside VQA's annotations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from madtp_cli.data.answers import ANSWER_LIST

from madtp_cli import data
from madtp_cli.scenes.generator import answers
from madtp_cli.scenes.writing import write_scenes
from tests.data.readers.conftest import complaint, write
from tests.data.readers.test_blip_json import question, write_captions, write_vqa
from tests.data.readers.test_vqa_v2 import ANNOTATIONS, write_pair


def test_the_scenes_list_is_read_back(tmp_path):
    """What is written beside the annotations ranks on the written data as on the built-in ones."""
    write_scenes(tmp_path / "vqa", "vqa", {"val": 2, "test": 2})
    found = data.read(tmp_path / "vqa", "vqa")
    assert found.answers == tuple(answers()) == data.read(None, "vqa").answers


@pytest.mark.parametrize("place", ["", "annotation"])
def test_both_vqa_layouts_have_it(tmp_path, place):
    """One place reads it, beside whatever annotations; an answer counts once, in the order of the file."""
    blip, official = write_vqa(tmp_path / "blip", "val", [question(0)]), write_pair(tmp_path / "vqa", "val2014")
    for folder in (blip, official):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / ANSWER_LIST).write_text(json.dumps(["yes", "no", "yes", "2"]))
        assert data.read(folder, "vqa").answers == ("yes", "no", "2")


def test_a_given_file_has_the_list_beside_it(tmp_path):
    """And not one of another folder."""
    folder = write_pair(tmp_path, "val2014")
    write(folder / ANSWER_LIST, ["yes"])
    write(folder / "annotation" / "deeper" / ANSWER_LIST, ["no"])
    assert data.read(folder / ANNOTATIONS.format("val2014"), "vqa").answers == ("yes",)


def test_without_a_list_there_are_no_answers(tmp_path):
    """Then a model writes them; a caption has none to choose from, whatever lies beside it."""
    assert data.read(write_vqa(tmp_path, "val", [question(0)]), "vqa").answers == ()
    folder = write_captions(tmp_path / "coco", "val", [{"image": "1.jpg", "caption": ["a ring"]}])
    write(folder / "annotation" / ANSWER_LIST, ["yes"])
    assert data.read(folder, "caption").answers == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [([], "is empty"), (["yes", 2], "item 2: 2 is no answer"), (["yes", " "], "item 2: ' ' is no answer"),
     ({"yes": 0}, "item 1: {'yes': 0} is no answer"), ([["yes"]], "item 1")],
)  # fmt: skip
def test_a_broken_list_is_told(tmp_path, content: Any, said):
    """It would be ranked, or passed over, without a word."""
    folder = write_vqa(tmp_path, "val", [question(0)])
    write(folder / "annotation" / ANSWER_LIST, content)
    told = complaint(folder, "vqa")
    assert said in told
    assert ANSWER_LIST in told


def test_what_is_no_json_is_told_with_its_line(tmp_path):
    """As of every annotation file."""
    folder = write_vqa(tmp_path, "val", [question(0)])
    (folder / "annotation" / ANSWER_LIST).write_text('["yes",\n "no"')
    assert "line 2" in complaint(folder, "vqa")


def test_two_lists_are_one_too_many(tmp_path):
    """Nobody could tell which one was ranked; the annotation file itself says which."""
    folder = write_vqa(tmp_path, "val", [question(0)])
    write(folder / ANSWER_LIST, ["yes"])
    write(folder / "annotation" / ANSWER_LIST, ["no"])
    assert "Several files list the answers" in complaint(folder, "vqa")
    assert data.read(folder / "annotation" / "vqa_val.json", "vqa").answers == ("no",)


def test_the_list_is_not_blamed_for_what_is_missing(tmp_path):
    """It holds no records, and need not."""
    write(tmp_path / ANSWER_LIST, ["yes"])
    assert ANSWER_LIST not in complaint(tmp_path, "vqa")
