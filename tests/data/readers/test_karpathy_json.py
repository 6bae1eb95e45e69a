"""Karpathy's JSON: one file with all splits."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from madtp_cli import data
from tests.data.readers.conftest import error_text, layouts, names, write


def image(number: int, split: str, *, filepath: str | None = "val2014", **fields: Any) -> dict[str, Any]:
    """Return a record as published; Flickr30k's have no `filepath`."""
    sentences = [{"tokens": ["a"], "raw": f"A {number} {word}.", "imgid": number} for word in ("cat", "dog")]
    where = {} if filepath is None else {"filepath": filepath}
    return {**where, "filename": f"{number}.jpg", "split": split, "imgid": number, "sentences": sentences, **fields}


def write_images(folder, images, *, below="images", name="dataset_coco.json"):
    """Write the file and its images."""
    pictures = [f"{below}/{item.get('filepath', '.')}/{item['filename']}" for item in images]
    return write(folder / name, {"images": images, "dataset": "coco"}, pictures)


def test_splits_come_from_the_records(tmp_path):
    """The rest of COCO's validation images, "restval", is used for training."""
    folder = write_images(
        tmp_path,
        [image(0, "test"), image(1, "restval"), image(2, "train", filepath="train2014"), image(3, "val")],
    )
    found = data.read(folder, "captions")
    assert {split: names(rows) for split, rows in found.splits.items()} == {
        "train": ["1.jpg", "2.jpg"],
        "val": ["3.jpg"],
        "test": ["0.jpg"],
    }
    row = found.split("test")[0]
    assert (row.identifier, row.text, row.references) == ("val2014/0.jpg", "A 0 cat.", ("A 0 cat.", "A 0 dog."))
    assert found.notes == []
    assert layouts(folder, "captions") == ["Karpathy's split JSON"]


@pytest.mark.parametrize(
    "below", ["images", "flickr30k-images", "datasets/vision/flickr/flickr30k-images", "datasets/vision/coco/images"]
)
def test_flickr_has_one_folder_of_images(tmp_path, below):
    """The folder has the name of the archive or another usual name."""
    folder = write_images(tmp_path, [image(7, "test", filepath=None)], below=below, name="dataset_flickr30k.json")
    assert names(data.read(folder, "captions").split("test")) == ["7.jpg"]


def test_images_of_coco_may_be_in_one_folder(tmp_path):
    """Their names are different."""
    folder = write_images(tmp_path, [image(n, "test") for n in range(3)])
    for file in (folder / "images/val2014").iterdir():
        shutil.move(file, folder / "images" / file.name)
    assert names(data.read(folder, "captions").split("test")) == ["0.jpg", "1.jpg", "2.jpg"]


def test_only_the_requested_splits_need_images(tmp_path):
    """Few users download all of COCO to evaluate on 5,000 images."""
    folder = write_images(tmp_path, [image(0, "train", filepath="train2014"), image(1, "test")])
    shutil.rmtree(folder / "images/train2014")
    assert len(data.read(folder, "captions", ["test"]).split("test")) == 1
    assert "1 of 1 images named in" in error_text(folder, "captions")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "dev2"}, "the split 'dev2' is unknown"),
        ({"split": 3}, "field 'split' must be a text"),
        ({"filename": ""}, "field 'filename' must be a text"),
        ({"filepath": 4}, "field 'filepath' must be a text"),
        ({"filename": "../../../x.jpg"}, "leaves the data folder"),
        ({"sentences": []}, "the row has no caption"),
        ({"sentences": [{"raw": " "}]}, "the row has no caption"),
        ({"sentences": [{"tokens": ["a"]}]}, "field 'sentences' must be a list of {'raw': text}"),
        ({"sentences": "a dog"}, "field 'sentences' must be a list of {'raw': text}"),
    ],
)
def test_an_error_names_the_row(tmp_path, fields, message):
    """The list has 123,287 rows."""
    folder = write(tmp_path / "dataset.json", {"images": [image(0, "test"), image(1, "test") | fields]}, ["0.jpg"])
    text = error_text(folder, "captions")
    assert "dataset.json, images row 2: " in text
    assert message in text


def test_several_data_sets_are_an_error(tmp_path):
    """Karpathy's archive holds COCO, Flickr30k and Flickr8k in one folder."""
    for name in ("dataset_coco.json", "dataset_flickr30k.json"):
        folder = write_images(tmp_path, [image(0, "test")], name=name)
    assert "Several files hold a data set each" in error_text(folder, "captions")
    assert len(data.read(folder / "dataset_coco.json", "captions").split("test")) == 1


def test_an_incomplete_file_is_an_error(tmp_path):
    """Its beginning is enough to recognise it."""
    folder = write_images(tmp_path, [image(0, "test"), image(1, "test")])
    text = (folder / "dataset_coco.json").read_text()
    (folder / "dataset_coco.json").write_text(text[: len(text) - 40])
    assert "dataset_coco.json is broken: line 1" in error_text(folder, "captions")
