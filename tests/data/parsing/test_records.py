"""Records of annotation files: one object, a row per line, and broken files."""

from __future__ import annotations

import json

import pytest

from madtp_cli.data.parsing import annotation_files, records
from madtp_cli.errors import DataError


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_may_take_one_line_or_many(tmp_path, indent):
    """JSON lines also begin with an object, but the first line of this file is not a whole object."""
    content = {"info": {"year": 2014}, "images": [{"id": 1}, {"id": 2}]}
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(content, indent=indent))
    assert records.load_object(file) == content
    assert [record.row for record in records.records_in_list(file, content, "images")] == [1, 2]
    assert records.find_fault(file) is None


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}\n{"a": 2}', "[1]", "7"])
def test_a_file_that_is_not_one_object_is_an_error(tmp_path, content):
    """An incomplete conversion to JSON lines leaves such files."""
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(DataError, match="must hold one JSON object"):
        records.load_object(tmp_path / "captions.json")


def test_a_number_with_thousands_of_digits_is_an_error(tmp_path):
    """Python refuses to parse it and raises an error of its own."""
    (tmp_path / "rows.json").write_text('[{"image_id": ' + "1" * 5_000 + "}]")
    with pytest.raises(DataError, match="line 1 holds a number with thousands of digits"):
        records.load(tmp_path / "rows.json")


def test_a_long_file_with_a_correct_beginning_is_not_searched_for_faults(tmp_path):
    """Otherwise a folder with COCO's boxes would take a minute to be refused."""
    file = tmp_path / "boxes.json"
    file.write_text('{"images": [' + '{"id": 1}, ' * 10_000)
    assert records.find_fault(file) is None
    file.write_text('{"images": [{"id": 1}, ')
    assert "boxes.json is broken" in (records.find_fault(file) or "")


@pytest.mark.parametrize(
    ("name", "split", "word"),
    [
        ("captions_val2014", "val", "val2014"),
        ("v2_OpenEnded_mscoco_test-dev2015_questions", "test", "test-dev2015"),
        ("nlvr_dev", "val", "dev"),
        ("contest_trainer", None, ""),
    ],
)
def test_a_split_is_found_in_a_file_name(tmp_path, name, split, word):
    """The split is a word of its own, with the year that is also in the names of images."""
    assert annotation_files.split_in_name(name) == split
    assert annotation_files.split_word(tmp_path / f"{name}.json") == word
