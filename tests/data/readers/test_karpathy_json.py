"""Karpathy's JSON: all splits in one file."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from madtp_cli import data
from tests.data.readers.conftest import complaint, names, write


def image(number: int, split: str, *, filepath: str | None = "val2014", **fields: Any) -> dict[str, Any]:
    """An image as published; Flickr30k's have no `filepath`."""
    sentences = [{"tokens": ["a"], "raw": f"A {number} {word}.", "imgid": number} for word in ("cat", "dog")]
    where = {} if filepath is None else {"filepath": filepath}
    return {**where, "filename": f"{number}.jpg", "split": split, "imgid": number, "sentences": sentences, **fields}


def write_images(folder, images, *, below="images", name="dataset_coco.json"):
    """The file and its pictures."""
    pictures = [f"{below}/{item.get('filepath', '.')}/{item['filename']}" for item in images]
    return write(folder / name, {"images": images, "dataset": "coco"}, pictures)


@pytest.mark.parametrize("task", ["caption", "retrieval"])
def test_splits_come_from_the_records(tmp_path, task):
    """What was left of COCO's validation images, "restval", is train data for everybody."""
    folder = write_images(
        tmp_path,
        [image(0, "test"), image(1, "restval"), image(2, "train", filepath="train2014"), image(3, "val")],
    )
    found = data.read(folder, task)
    assert {split: names(rows) for split, rows in found.splits.items()} == {
        "train": ["1.jpg", "2.jpg"],
        "val": ["3.jpg"],
        "test": ["0.jpg"],
    }
    row = found.split("test")[0]
    assert (row.identifier, row.text, row.references) == ("val2014/0.jpg", "A 0 cat.", ("A 0 cat.", "A 0 dog."))
    assert found.notes == []
    assert [reader.LAYOUT for reader in data.fitting(folder, task)] == ["Karpathy's split JSON"]


@pytest.mark.parametrize(
    "below", ["images", "flickr30k-images", "datasets/vision/flickr/flickr30k-images", "datasets/vision/coco/images"]
)
def test_flickr_has_no_folders_for_splits(tmp_path, below):
    """Its images lie in one folder, under the name the archive has or another."""
    folder = write_images(tmp_path, [image(7, "test", filepath=None)], below=below, name="dataset_flickr30k.json")
    assert names(data.read(folder, "retrieval").split("test")) == ["7.jpg"]


def test_cocos_images_may_lie_in_one_folder_too(tmp_path):
    """Their names tell them apart."""
    folder = write_images(tmp_path, [image(n, "test") for n in range(3)])
    for file in (folder / "images/val2014").iterdir():
        shutil.move(file, folder / "images" / file.name)
    assert names(data.read(folder, "caption").split("test")) == ["0.jpg", "1.jpg", "2.jpg"]


def test_only_the_splits_that_are_asked_for_need_images(tmp_path):
    """Few fetch all of COCO to evaluate on 5,000 images."""
    folder = write_images(tmp_path, [image(0, "train", filepath="train2014"), image(1, "test")])
    shutil.rmtree(folder / "images/train2014")
    assert len(data.read(folder, "caption", ["test"]).split("test")) == 1
    assert "1 of 1 images named in" in complaint(folder, "caption")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"split": "dev2"}, "the split 'dev2' is unknown"),
        ({"split": 3}, "field 'split' must be words"),
        ({"filename": ""}, "field 'filename' must be words"),
        ({"filepath": 4}, "field 'filepath' must be words"),
        ({"filename": "../../../x.jpg"}, "leaves the data folder"),
        ({"sentences": []}, "the row has no caption"),
        ({"sentences": [{"raw": " "}]}, "the row has no caption"),
        ({"sentences": [{"tokens": ["a"]}]}, "field 'sentences' must be a list of {'raw': words}"),
        ({"sentences": "a dog"}, "field 'sentences' must be a list of {'raw': words}"),
    ],
)
def test_what_is_wrong_is_told_with_its_row(tmp_path, fields, words):
    """The list has 123,287 rows."""
    folder = write(tmp_path / "dataset.json", {"images": [image(0, "test"), image(1, "test") | fields]}, ["0.jpg"])
    text = complaint(folder, "caption")
    assert "dataset.json, images row 2: " in text
    assert words in text


def test_several_data_sets_are_refused(tmp_path):
    """Karpathy's archive holds COCO, Flickr30k and Flickr8k side by side."""
    for name in ("dataset_coco.json", "dataset_flickr30k.json"):
        folder = write_images(tmp_path, [image(0, "test")], name=name)
    assert "Several files hold a data set each" in complaint(folder, "caption")
    assert len(data.read(folder / "dataset_coco.json", "caption").split("test")) == 1


def test_a_file_that_is_cut_off_is_broken(tmp_path):
    """It begins well enough to be recognised."""
    folder = write_images(tmp_path, [image(0, "test"), image(1, "test")])
    text = (folder / "dataset_coco.json").read_text()
    (folder / "dataset_coco.json").write_text(text[: len(text) - 40])
    assert "dataset_coco.json is broken: line 1" in complaint(folder, "caption")
