"""COCO's own caption files, among COCO's other files."""

from __future__ import annotations

import json
from typing import Any

import pytest
from madtp_cli.data.json_sniffing import PEEK_BYTES

from madtp_cli import data
from tests.data.readers.conftest import complaint, names, write


def images(subset: str, numbers: range) -> list[dict[str, Any]]:
    """COCO's list of images."""
    return [{"license": 3, "file_name": f"COCO_{subset}_{n:012}.jpg", "height": 3, "id": n} for n in numbers]


def captions(subset: str, number: int) -> dict[str, Any]:
    """A caption file as published; the captions in an order of their own."""
    return {
        "info": {"year": 2014},
        "images": images(subset, range(7, 7 + number)),
        "licenses": [],
        "annotations": [
            {"image_id": 7 + n, "id": 100 + n, "caption": f"{word} {n}"}
            for word in ("one", "two")
            for n in reversed(range(number))
        ],
    }


def write_captions(folder, subset, number=3, *, images="{}/"):
    """The file in COCO's folder, with its pictures."""
    content = captions(subset, number)
    pictures = [f"{images.format(subset)}{item['file_name']}" for item in content["images"]]
    return write(folder / f"annotations/captions_{subset}.json", content, pictures)


@pytest.mark.parametrize("task", ["caption", "retrieval"])
@pytest.mark.parametrize("where", ["{}/", "images/{}/", "images/"])
def test_images_come_with_all_their_captions(tmp_path, task, where):
    """One row per image, in the file's order of images."""
    write_captions(tmp_path, "train2014", images=where)
    folder = write_captions(tmp_path, "val2014", 2, images=where)
    found = data.read(folder, task)
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 2}
    assert names(found.split("val")) == ["COCO_val2014_000000000007.jpg", "COCO_val2014_000000000008.jpg"]
    assert [row.references for row in found.split("val")] == [("one 0", "two 0"), ("one 1", "two 1")]
    assert [row.text for row in found.split("val")] == ["one 0", "one 1"]


def test_other_files_of_coco_are_not_captions(tmp_path):
    """They come in the same archive, with the same images, and hold boxes."""
    folder = write_captions(tmp_path, "val2014")
    boxes = [{"id": n, "image_id": 7, "bbox": [0, 0, 1, 1], "category_id": 1} for n in range(5)]
    content = {"images": images("val2014", range(7, 10)), "annotations": boxes, "categories": [{"id": 1}]}
    for name in ("instances", "person_keypoints"):
        write(folder / f"annotations/{name}_val2014.json", content)
    assert len(data.read(folder, "caption").split("val")) == 3
    assert [reader.LAYOUT for reader in data.fitting(folder, "caption")] == ["COCO captions JSON"]
    assert data.fitting(folder / "annotations/instances_val2014.json", "caption") == []


@pytest.mark.parametrize("order", [("images", "annotations"), ("annotations", "images")])
def test_long_files_are_known_by_their_two_ends(tmp_path, order):
    """In COCO's own, 20 MB of images come before the first caption."""
    content = captions("val2014", 1500)
    file = tmp_path / "captions_val2014.json"
    file.write_text(json.dumps({name: content[name] for name in order}))
    assert file.stat().st_size > 3 * PEEK_BYTES
    assert [reader.LAYOUT for reader in data.fitting(file, "caption")] == ["COCO captions JSON"]
    found = data.read(file, "caption", missing_ok=True).split("val")
    assert len(found) == 1500
    assert found[1499].references == ("one 1499", "two 1499")


@pytest.mark.parametrize(
    ("part", "fields", "words"),
    [
        ("annotations", {"image_id": 99}, "annotations row 2: there is no image with the id 99"),
        ("annotations", {"image_id": "8"}, "annotations row 2: field 'image_id' is '8'"),
        ("annotations", {"caption": 5}, "annotations row 2: field 'caption' must be words"),
        ("images", {"id": 99}, "there is no image with the id 8"),
        ("images", {"file_name": None}, "images row 2: field 'file_name' must be words"),
        ("images", {"file_name": "../../x.jpg"}, "images row 2: image path"),
    ],
)
def test_what_is_wrong_is_told_with_its_row(tmp_path, part, fields, words):
    """Of the two lists the one that is meant is named."""
    content = captions("val2014", 3)
    content[part][1].update(fields)
    write_captions(tmp_path, "val2014")
    write(tmp_path / "annotations/captions_val2014.json", content)
    assert words in complaint(tmp_path, "caption")


def test_an_image_without_a_caption_is_named(tmp_path):
    """Its row could neither be learnt from nor scored."""
    content = captions("val2014", 3)
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != 9]
    write_captions(tmp_path, "val2014")
    write(tmp_path / "annotations/captions_val2014.json", content)
    assert "captions_val2014.json, images row 3: the row has no caption" in complaint(tmp_path, "retrieval")


def test_a_list_that_is_missing_is_named(tmp_path):
    """Cut down by a script that forgot the images."""
    write_captions(tmp_path, "train2014")
    write(tmp_path / "annotations/captions_val2014.json", {"annotations": captions("val2014", 1)["annotations"]})
    assert "captions_val2014.json has no list 'images'" in complaint(tmp_path, "caption")
