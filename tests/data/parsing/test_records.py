"""Files of annotations: what is one object, what is a row after row, and what is broken."""

from __future__ import annotations

import json

import pytest

from madtp_cli.data import records
from madtp_cli.errors import DataError


@pytest.mark.parametrize("indent", [None, 2])
def test_one_object_is_read_on_one_line_or_many(tmp_path, indent):
    """JSON lines also begin with an object; this one's first line is none by itself."""
    content = {"info": {"year": 2014}, "images": [{"id": 1}, {"id": 2}]}
    file = tmp_path / "captions.json"
    file.write_text(json.dumps(content, indent=indent))
    assert records.load_object(file) == content
    assert [record.row for record in records.part(file, content, "images")] == [1, 2]
    assert records.fault(file) is None


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}\n{"a": 2}', "[1]", "7"])
def test_what_is_no_object_is_refused(tmp_path, content):
    """As after a half-done conversion to JSON lines."""
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(DataError, match="must hold one JSON object"):
        records.load_object(tmp_path / "captions.json")


def test_a_number_of_thousands_of_digits_is_no_crash(tmp_path):
    """Python refuses to read it, with an error of its own."""
    (tmp_path / "rows.json").write_text('[{"image_id": ' + "1" * 5_000 + "}]")
    with pytest.raises(DataError, match="line 1 holds a number of thousands of digits"):
        records.load(tmp_path / "rows.json")


def test_a_long_file_that_begins_well_is_not_searched_for_faults(tmp_path):
    """Else a folder with COCO's boxes would take a minute to say that it holds no captions."""
    file = tmp_path / "boxes.json"
    file.write_text('{"images": [' + '{"id": 1}, ' * 10_000)
    assert records.fault(file) is None
    file.write_text('{"images": [{"id": 1}, ')
    assert "boxes.json is broken" in (records.fault(file) or "")


@pytest.mark.parametrize(
    ("name", "split", "word"),
    [
        ("captions_val2014", "val", "val2014"),
        ("v2_OpenEnded_mscoco_test-dev2015_questions", "test", "test-dev2015"),
        ("nlvr_dev", "val", "dev"),
        ("contest_trainer", None, ""),
    ],
)
def test_a_name_tells_its_split(tmp_path, name, split, word):
    """As a word of its own, with the year that is also in the names of images."""
    assert records.split_named(name) == split
    assert records.split_word(tmp_path / f"{name}.json") == word
