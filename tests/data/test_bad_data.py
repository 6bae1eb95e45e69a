"""Errors about wrong data name the file, the row and the remedy, in at most three lines."""

from __future__ import annotations

import json
import os

import pytest

from madtp_cli import data
from madtp_cli.errors import DataError
from tests.data.conftest import blip_rows, write_image


def error_text(path, *, splits=data.SPLITS) -> str:
    """Return the message about a data set that cannot be used."""
    with pytest.raises(DataError) as caught:
        data.read(path, "statements", splits)
    text = str(caught.value)
    assert 2 <= len(text.splitlines()) <= 3
    assert caught.value.exit_code == 3
    return text


@pytest.fixture
def good(write_blip):
    """A data set without faults."""
    return write_blip({split: blip_rows(split, 4) for split in ("train", "dev", "test")})


@pytest.fixture
def corrupt(good):
    """Change one row of the test annotations: `corrupt(2, label="maybe")`; None removes a field."""

    def change(row, **fields):
        file = good / "annotation/nlvr_test.json"
        rows = json.loads(file.read_text())
        rows[row - 1] = {k: v for k, v in {**rows[row - 1], **fields}.items() if v is not None}
        file.write_text(json.dumps(rows))
        return good

    return change


@pytest.mark.parametrize("field", ["sentence", "label", "images"])
@pytest.mark.parametrize("row", [1, 3])
def test_a_missing_field_is_named_with_its_row(corrupt, field, row):
    """This includes the first row, from which the layout is recognised."""
    assert f"nlvr_test.json, row {row}: field '{field}' is missing" in error_text(corrupt(row, **{field: None}))


@pytest.mark.parametrize("label", ["maybe", "", 2, -1, 0.5, [], {}])
def test_an_unknown_label_is_an_error(corrupt, label):
    """A guessed label could invert the meaning of the data."""
    assert f"row 2: field 'label' is {label!r}" in error_text(corrupt(2, label=label))


@pytest.mark.parametrize("sentence", ["", "  ", 7, ["a"]])
def test_a_sentence_must_be_a_text(corrupt, sentence):
    """A blank sentence would be scored like a real one."""
    assert "row 4: field 'sentence' must be a text" in error_text(corrupt(4, sentence=sentence))


@pytest.mark.parametrize("images", ["a.png", [], ["a.png"], ["a.png", 3], ["a.png", ""], ["a", "b", "c"]])
def test_images_must_be_two_paths(corrupt, images):
    """NLVR2 is about pairs of images."""
    assert "row 4: field 'images' must hold two paths" in error_text(corrupt(4, images=images))


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", "..\\x.png", "\\x.png", "a\0.png"])
def test_a_path_outside_the_folder_is_an_error(corrupt, name):
    """Annotation files come from strangers, so the program must not even check whether such a file exists."""
    assert "leaves the data folder" in error_text(corrupt(3, images=["test/test-0-img0.png", name]))


@pytest.mark.parametrize("of_folder", [True, False])
def test_a_link_outside_the_folder_is_an_error(good, tmp_path_factory, of_folder):
    """A downloaded archive can contain links to any file."""
    outside = tmp_path_factory.mktemp("outside")
    (good / "images/test/test-1-img0.png").unlink()
    write_image(outside / "test-1-img0.png")
    write_image(outside / "test-1-img1.png")
    if of_folder:
        (good / "images/link").symlink_to(outside)
        rows = json.loads((good / "annotation/nlvr_test.json").read_text())[:1]
        rows[0]["images"] = ["link/test-1-img0.png", "link/test-1-img1.png"]
        (good / "annotation/nlvr_test.json").write_text(json.dumps(rows))
    else:
        (good / "images/test/test-1-img0.png").symlink_to(outside / "test-1-img0.png")
    assert "is a link to a file outside" in error_text(good)


def test_missing_images_are_counted_and_three_are_named(good):
    """The count shows whether one file is missing or the folder is wrong."""
    for file in (good / "images/test").iterdir():
        file.unlink()
    text = error_text(good)
    assert "4 of 4 images named in" in text
    assert "test/test-0-img0.png, test/test-0-img1.png, test/test-1-img0.png and others.\n" in text
    (good / "images/val-is-complete").touch()
    assert len(data.read(good, "statements", ["val"]).split("val")) == 4


def test_a_broken_link_is_a_missing_image(good):
    """git-annex and interrupted downloads leave such links."""
    victim = good / "images/test/test-0-img1.png"
    victim.unlink()
    victim.symlink_to("nowhere.png")
    assert "1 of 4 images" in error_text(good)


def test_broken_json_is_reported_with_line_and_column(good):
    """The usual cause is an interrupted download."""
    file = good / "annotation/nlvr_test.json"
    file.write_text('[\n {"sentence": "a b", "label": "True", "images": ["a", "b"]},\n {"sentence" oops}]')
    assert "nlvr_test.json is broken: line 3, column 14" in error_text(good)
    file.write_text('[{"sentence": "a b", "lab')
    assert "nlvr_test.json is broken: line 1, column 22" in error_text(good)


def test_broken_json_lines_are_reported_with_their_line(tmp_path):
    """Columns are counted within the line."""
    first = {"identifier": "dev-0-0-0", "sentence": "a", "label": "True"}
    (tmp_path / "dev.json").write_text(json.dumps(first) + '\n\n{"identifier": }\n')
    assert "dev.json is broken: line 3, column 16" in error_text(tmp_path)


@pytest.mark.parametrize("content", ["", " \n", "[]"])
def test_an_empty_file_is_an_error(good, content):
    """If it were ignored, the result could come from another split."""
    (good / "annotation/nlvr_dev.json").write_text(content)
    assert "nlvr_dev.json is empty" in error_text(good)


def test_rows_must_be_objects(good):
    """Row 2 of this list is a number."""
    file = good / "annotation/nlvr_test.json"
    file.write_text(json.dumps([json.loads(file.read_text())[0], 5]))
    assert "nlvr_test.json, row 2: 5 is not a record" in error_text(good)


def test_a_binary_file_is_an_error(good):
    """A misnamed archive must not cause a traceback."""
    (good / "annotation/nlvr_test.json").write_bytes(b"PK\x03\x04\xff\xfe")
    assert "is not text in UTF-8" in error_text(good)


def test_deep_nesting_is_an_error(good):
    """Python's JSON parser fails with a RecursionError."""
    (good / "annotation/nlvr_test.json").write_text("[" * 200_000)
    assert "nested too deeply" in error_text(good)


def test_a_folder_without_annotations_lists_the_known_layouts(tmp_path):
    """The message also names a broken file, if there is one."""
    text = error_text(tmp_path)
    assert "holds no annotations for statements in a known layout" in text
    assert all(reader.LAYOUT in text for reader in data.all_readers())
    (tmp_path / "train.json").write_text("")
    assert "train.json is empty" in error_text(tmp_path)
    assert "There is no file or folder" in error_text(tmp_path / "nowhere")


def test_a_file_name_without_a_split_is_an_error(good):
    """Whether the file is for training or for testing cannot be guessed."""
    (good / "annotation/nlvr_test.json").rename(good / "pairs.json")
    assert "contains no split name" in error_text(good / "pairs.json")


def test_two_files_for_one_split_are_an_error(good):
    """Which of them the user means cannot be guessed."""
    (good / "annotation/other_test.json").write_bytes((good / "annotation/nlvr_test.json").read_bytes())
    text = error_text(good)
    assert "Several files belong to the test split" in text
    assert "other_test.json" in text


def test_two_layouts_in_one_folder_are_an_error(good):
    """The official files and those of BLIP can differ."""
    (good / "dev.json").write_text('{"identifier": "dev-0-0-0", "sentence": "a", "label": "True"}')
    assert "holds both BLIP annotation JSON and official NLVR2 JSON lines" in error_text(good)


def test_an_official_identifier_must_end_in_a_number(tmp_path):
    """The names of the images are made from it."""
    (tmp_path / "dev.json").write_text('{"identifier": "dev", "sentence": "a", "label": "True"}')
    assert "dev.json, row 1: identifier 'dev' does not end in a number" in error_text(tmp_path)


def test_an_official_directory_must_stay_in_the_folder(tmp_path):
    """The field `directory` becomes part of a path."""
    row = {"identifier": "train-0-0-0", "sentence": "a", "label": "True", "directory": "../../.."}
    (tmp_path / "train.json").write_text(json.dumps(row))
    assert "leaves the data folder" in error_text(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(good):
    """The error is not a traceback."""
    (good / "annotation/nlvr_test.json").chmod(0)
    assert "nlvr_test.json cannot be read: Permission denied" in error_text(good)
