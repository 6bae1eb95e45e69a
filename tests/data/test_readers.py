"""Readers recognise data by their content and find the images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from madtp_cli import data
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import DataError
from tests.data.conftest import blip_rows, write_image


def paths(row: data.Row) -> list[Path]:
    """Return the paths of the images of a row."""
    return [image.path for image in row.images if isinstance(image, ImageFile)]


def official_rows(split: str, number: int, *, directory: int | None = None) -> list[dict[str, Any]]:
    """Return rows in the layout of the authors of NLVR2."""
    extra = {} if directory is None else {"directory": directory}
    return [
        {
            "identifier": f"{split}-{i // 2}-1-{i % 2}",
            "sentence": f"One cat and {i} mice.",
            "label": "True" if i % 3 else "False",
            "left_url": "http://example.invalid/a.png",
            "right_url": "http://example.invalid/b.png",
            "synset": "cat",
            **extra,
        }
        for i in range(number)
    ]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines with a blank last line, as published."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")


@pytest.mark.parametrize("annotation", [".", "annotation", "annotations"])
@pytest.mark.parametrize("images", [".", "images", "datasets/vision/NLVR2"])
def test_blip_annotations_are_found_in_usual_folders(write_blip, annotation, images):
    """Users put the files where the instructions of BLIP or MADTP say, or all into one folder."""
    folder = write_blip(
        {split: blip_rows(split, 4) for split in ("train", "dev", "test")}, annotation=annotation, images=images
    )
    found = data.read(folder, "statements")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 4, "val": 4, "test": 4}
    row = found.split("val")[3]
    assert (row.text, row.label, row.kind) == ("There are 3 dogs.", 0, None)
    assert [path.resolve() for path in paths(row)] == [folder / images / f"dev/dev-1-img{s}.png" for s in (0, 1)]
    assert found.notes == []


def test_a_layout_is_recognised_by_content_and_not_by_name(write_blip):
    """A file called nlvr_test.json can hold anything."""
    folder = write_blip({"test": blip_rows("test", 2)})
    shutil.move(folder / "annotation/nlvr_test.json", folder / "annotation/my-pairs.test.json")
    (folder / "annotation/nlvr_train.json").write_text('["an answer list", "yes"]')
    (folder / "annotation/coco_karpathy_test.json").write_text('[{"image": "a.jpg", "caption": ["x"]}]')
    assert list(data.read(folder, "statements").splits) == ["test"]


def test_path_may_be_one_annotation_file(write_blip):
    """Its images are searched in the data folder of the file."""
    folder = write_blip({"train": blip_rows("train", 2), "test": blip_rows("test", 4)})
    found = data.read(folder / "annotation/nlvr_test.json", "statements")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"test": 4}
    assert list(data.read(folder / "annotation", "statements").splits) == ["train", "test"]


@pytest.mark.parametrize("root", [".", "images"])
@pytest.mark.parametrize("subfolder", [".", "data"])
def test_official_nlvr2_is_found_in_usual_folders(tmp_path, root, subfolder):
    """Train images are in numbered folders, other images in one folder per split."""
    write_lines(tmp_path / subfolder / "train.json", official_rows("train", 4, directory=17))
    write_lines(tmp_path / subfolder / "dev.json", official_rows("dev", 4))
    write_lines(tmp_path / subfolder / "test1.json", official_rows("test1", 4))
    for folder in ("train/17/train", "dev/dev", "test1/test1"):
        for number in (0, 1):
            for side in (0, 1):
                write_image(tmp_path / root / f"{folder}-{number}-1-img{side}.png")
    found = data.read(tmp_path, "statements")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 4, "val": 4, "test": 4}
    row = found.split("train")[3]
    assert (row.identifier, row.label, row.text) == ("train-1-1-1", 0, "One cat and 3 mice.")
    assert [path.name for path in paths(row)] == ["train-1-1-img0.png", "train-1-1-img1.png"]
    assert paths(row)[0].parent.name == "17"
    assert paths(found.split("test")[0])[1].parent.name == "test1"


def test_of_two_numbered_test_files_the_first_is_used_with_a_note(tmp_path):
    """Joining test1 and test2 would give a result that cannot be compared with published ones."""
    for split in ("test1", "test2"):
        write_lines(tmp_path / f"{split}.json", official_rows(split, 2))
        for side in (0, 1):
            write_image(tmp_path / split / f"{split}-0-1-img{side}.png")
    found = data.read(tmp_path, "statements")
    assert found.split("test")[0].identifier.startswith("test1-")
    assert found.notes == ["the test split is test1.json; test2.json not used (give that file itself to use it)"]
    assert data.read(tmp_path / "test2.json", "statements").split("test")[0].identifier.startswith("test2-")


def test_only_the_requested_splits_are_read(write_blip):
    """Missing train images must not prevent an evaluation on the test split."""
    folder = write_blip({split: blip_rows(split, 4) for split in ("train", "dev", "test")})
    shutil.rmtree(folder / "images/train")
    assert list(data.read(folder, "statements", ["test"]).splits) == ["test"]
    with pytest.raises(DataError, match="missing below"):
        data.read(folder, "statements")


@pytest.mark.parametrize(
    ("label", "truth"), [("True", 1), ("False", 0), ("false", 0), (True, 1), (False, 0), (1, 1), (0, 0)]
)
def test_labels_are_strings_booleans_or_numbers(write_blip, label, truth):
    """In Python, the string "False" is true, so labels must be parsed."""
    rows = blip_rows("test", 2)
    rows[1]["label"] = label
    assert data.read(write_blip({"test": rows}), "statements").split("test")[1].label == truth


def test_the_image_folder_may_be_a_symbolic_link(write_blip, tmp_path_factory):
    """Large data are on another disk; a folder that the user linked is trusted."""
    folder = write_blip({"test": blip_rows("test", 2)})
    elsewhere = tmp_path_factory.mktemp("disk")
    shutil.move(folder / "images", elsewhere / "pictures")
    (folder / "images").symlink_to(elsewhere / "pictures")
    assert len(data.read(folder, "statements").split("test")) == 2


def test_every_reader_has_the_names_of_a_reader():
    """A new layout is one new file; this test checks what the file must define."""
    assert len(data.all_readers()) >= 2
    for reader in data.all_readers():
        assert reader.LAYOUT
        assert callable(reader.recognises)
        assert callable(reader.read)
    assert len({reader.LAYOUT for reader in data.all_readers()}) == len(data.all_readers())
