"""The beginning and the end of a file are enough to recognise its layout."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.data.parsing.json_sniffing import PEEK_BYTES, first_objects, last_objects

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file that each test writes."""
    return tmp_path_factory.mktemp("peek") / "rows.json"


@given(OBJECTS, st.sampled_from([None, 0, 2]), st.booleans())
def test_a_short_file_is_read_completely(file, objects, indent, as_lines):
    """Lists and lines, on one line or many, with texts and brackets of all kinds."""
    if as_lines:
        file.write_text("\n".join(map(json.dumps, objects)))
    else:
        file.write_text(json.dumps(objects, indent=indent))
    assert first_objects(file) == objects


@given(st.data(), OBJECTS)
def test_a_cut_off_file_gives_only_complete_values(file, data, objects):
    """Complete objects, and complete fields and elements of the first object: half a word could be another word."""
    text = json.dumps([{"first": ["one", "two"], "then": "three"}, *objects])
    file.write_text(text[: data.draw(st.integers(0, len(text) - 2))])
    first, *others = first_objects(file) or [{}]
    assert others == objects[: len(others)]
    assert first.get("first", []) in ([], ["one"], ["one", "two"])
    assert first.get("then", "three") == "three"


@pytest.mark.parametrize(
    "content", ["", " ", "[]", "[1, 2]", '"words"', "null", "PK\x03\x04", "[" * 99_999, '{"a":' * 99_999]
)
def test_a_file_without_objects_gives_none(file, content):
    """It is not an error, because annotation folders hold files of all kinds."""
    file.write_text(content)
    assert [fields for fields in first_objects(file) if fields] == []
    assert last_objects(file) == []


def test_large_files_are_not_read_completely(file):
    """COCO's largest file has 500 MB. Of the 100 MB here, only the two ends are read."""
    file.write_text('{"images": [' + '{"id": 1}, ' * PEEK_BYTES)
    os.truncate(file, 100_000_000)
    with file.open("ab") as stream:
        stream.write(b'{"id": 2, "caption": "x"}], "n": {"m": {"id": 3}}}')
    tracemalloc.start()
    try:
        (head,) = first_objects(file)
        assert 5000 < len(head["images"]) < PEEK_BYTES / 11
        assert last_objects(file) == [{"id": 2, "caption": "x"}, {"id": 3}]
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
