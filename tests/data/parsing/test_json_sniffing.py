"""The ends of a file are enough to know its layout, and all that is read for it."""

from __future__ import annotations

import json
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from madtp_cli.data.json_sniffing import PEEK_BYTES, beginning, ending

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file that is written again and again."""
    return tmp_path_factory.mktemp("peek") / "rows.json"


@given(OBJECTS, st.sampled_from([None, 0, 2]), st.booleans())
def test_a_short_file_is_seen_whole(file, objects, indent, as_lines):
    """Lists and lines, on one line or over many, with text and brackets of all kinds in them."""
    if as_lines:
        file.write_text("\n".join(map(json.dumps, objects)))
    else:
        file.write_text(json.dumps(objects, indent=indent))
    assert beginning(file) == objects


@given(st.data(), OBJECTS)
def test_a_cut_shows_nothing_that_is_not_there(file, data, objects):
    """Whole objects, or of the first one whole fields and elements: half a word could be another word."""
    text = json.dumps([{"first": ["one", "two"], "then": "three"}, *objects])
    file.write_text(text[: data.draw(st.integers(0, len(text) - 2))])
    first, *others = beginning(file) or [{}]
    assert others == objects[: len(others)]
    assert first.get("first", []) in ([], ["one"], ["one", "two"])
    assert first.get("then", "three") == "three"


@pytest.mark.parametrize(
    "content", ["", " ", "[]", "[1, 2]", '"words"', "null", "PK\x03\x04", "[" * 99_999, '{"a":' * 99_999]
)
def test_what_holds_no_objects_shows_none(file, content):
    """Nor is it a crash: annotation folders hold all kinds of files."""
    file.write_text(content)
    assert [fields for fields in beginning(file) if fields] == []
    assert ending(file) == []


def test_a_file_of_any_size_costs_the_same(file):
    """COCO's largest has 500 MB; this one has 100 MB, of which neither end may read more than its own."""
    file.write_text('{"images": [' + '{"id": 1}, ' * PEEK_BYTES)
    os.truncate(file, 100_000_000)
    with file.open("ab") as stream:
        stream.write(b'{"id": 2, "caption": "x"}], "n": {"m": {"id": 3}}}')
    tracemalloc.start()
    try:
        (head,) = beginning(file)
        assert 5000 < len(head["images"]) < PEEK_BYTES / 11
        assert ending(file) == [{"id": 2, "caption": "x"}, {"id": 3}]
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
