"""COCO's own caption files, among other files of COCO."""

from __future__ import annotations

import json
from typing import Any

import pytest

from madtp_cli import data
from madtp_cli.data.parsing.json_sniffing import PEEK_BYTES
from tests.data.readers.conftest import error_text, layouts, names, write


def images(subset: str, numbers: range) -> list[dict[str, Any]]:
    """Return the list of images in the form of COCO."""
    return [{"license": 3, "file_name": f"COCO_{subset}_{n:012}.jpg", "height": 3, "id": n} for n in numbers]


def captions(subset: str, number: int) -> dict[str, Any]:
    """Return a caption file as published; the captions have another order than the images."""
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
    """Write the file into COCO's folder, with its images."""
    content = captions(subset, number)
    pictures = [f"{images.format(subset)}{item['file_name']}" for item in content["images"]]
    return write(folder / f"annotations/captions_{subset}.json", content, pictures)


@pytest.mark.parametrize("where", ["{}/", "images/{}/", "images/"])
def test_an_image_is_one_row_with_all_its_captions(tmp_path, where):
    """The rows have the order of the images in the file."""
    write_captions(tmp_path, "train2014", images=where)
    folder = write_captions(tmp_path, "val2014", 2, images=where)
    found = data.read(folder, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 2}
    assert names(found.split("val")) == ["COCO_val2014_000000000007.jpg", "COCO_val2014_000000000008.jpg"]
    assert [row.references for row in found.split("val")] == [("one 0", "two 0"), ("one 1", "two 1")]
    assert [row.text for row in found.split("val")] == ["one 0", "one 1"]


def test_other_files_of_coco_are_not_captions(tmp_path):
    """They are in the same archive, have the same images and hold boxes."""
    folder = write_captions(tmp_path, "val2014")
    boxes = [{"id": n, "image_id": 7, "bbox": [0, 0, 1, 1], "category_id": 1} for n in range(5)]
    content = {"images": images("val2014", range(7, 10)), "annotations": boxes, "categories": [{"id": 1}]}
    for name in ("instances", "person_keypoints"):
        write(folder / f"annotations/{name}_val2014.json", content)
    assert len(data.read(folder, "captions").split("val")) == 3
    assert layouts(folder, "captions") == ["COCO captions JSON"]
    assert layouts(folder / "annotations/instances_val2014.json", "captions") == []


@pytest.mark.parametrize("order", [("images", "annotations"), ("annotations", "images")])
def test_long_files_are_recognised_by_their_two_ends(tmp_path, order):
    """In COCO's own files, 20 MB of images come before the first caption."""
    content = captions("val2014", 1500)
    file = tmp_path / "captions_val2014.json"
    file.write_text(json.dumps({name: content[name] for name in order}))
    assert file.stat().st_size > 3 * PEEK_BYTES
    assert layouts(file, "captions") == ["COCO captions JSON"]
    found = data.read(file, "captions", missing_ok=True).split("val")
    assert len(found) == 1500
    assert found[1499].references == ("one 1499", "two 1499")


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("annotations", {"image_id": 99}, "annotations row 2: there is no image with the id 99"),
        ("annotations", {"image_id": "8"}, "annotations row 2: field 'image_id' is '8'"),
        ("annotations", {"caption": 5}, "annotations row 2: field 'caption' must be a text"),
        ("images", {"id": 99}, "there is no image with the id 8"),
        ("images", {"file_name": None}, "images row 2: field 'file_name' must be a text"),
        ("images", {"file_name": "../../x.jpg"}, "images row 2: image path"),
    ],
)
def test_an_error_names_the_list_and_the_row(tmp_path, part, fields, message):
    """The file has two lists."""
    content = captions("val2014", 3)
    content[part][1].update(fields)
    write_captions(tmp_path, "val2014")
    write(tmp_path / "annotations/captions_val2014.json", content)
    assert message in error_text(tmp_path, "captions")


def test_an_image_without_a_caption_is_an_error(tmp_path):
    """Its row cannot be used for training or scoring."""
    content = captions("val2014", 3)
    content["annotations"] = [item for item in content["annotations"] if item["image_id"] != 9]
    write_captions(tmp_path, "val2014")
    write(tmp_path / "annotations/captions_val2014.json", content)
    assert "captions_val2014.json, images row 3: the row has no caption" in error_text(tmp_path, "captions")


def test_a_missing_list_is_named(tmp_path):
    """A script that shortened the file removed the images."""
    write_captions(tmp_path, "train2014")
    write(tmp_path / "annotations/captions_val2014.json", {"annotations": captions("val2014", 1)["annotations"]})
    assert "captions_val2014.json has no list 'images'" in error_text(tmp_path, "captions")
