"""Captions in the files of Flickr30k, and in a folder of images and text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from madtp_cli import data
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import DataError
from tests.data.conftest import write_image


def write_token(folder: Path, number: int, name: str = "results.token") -> Path:
    """Write two captions of each image."""
    lines = [f"{i}.jpg#{n}\tCaption {n} of {i} .\n" for i in range(number) for n in (0, 1)]
    (folder / name).write_text("".join(lines))
    for i in range(number):
        write_image(folder / f"images/{i}.jpg", 20 * i)
    return folder


def test_flickr_captions_are_one_row_per_image(tmp_path):
    """Five lines are about one image."""
    found = data.read(write_token(tmp_path, 10), "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 9, "val": 1}
    row = found.split("train")[0]
    assert (row.text, row.references) == ("Caption 0 of 0 .", ("Caption 0 of 0 .", "Caption 1 of 0 ."))
    assert row.images == (ImageFile(tmp_path / "images/0.jpg"),)
    assert "the name of results.token contains no split name" in found.notes[0]


def test_lists_next_to_flickr_captions_are_the_splits(tmp_path):
    """Published results use the same 1,000 test images."""
    write_token(tmp_path, 4)
    (tmp_path / "train.txt").write_text("0.jpg\n")
    (tmp_path / "val.txt").write_text("1\n")
    (tmp_path / "test.txt").write_text("2\n")
    found = data.read(tmp_path, "captions")
    assert {split: [Path(str(row.images[0])).stem for row in rows] for split, rows in found.splits.items()} == {
        "train": ["0"],
        "val": ["1"],
        "test": ["2"],
    }
    assert found.notes == ["splits from test.txt, train.txt, val.txt; images in none of them not used"]


def test_a_line_that_is_not_a_caption_is_an_error(tmp_path):
    """An interrupted download ends in the middle of a line."""
    write_token(tmp_path, 2)
    with (tmp_path / "results.token").open("a") as stream:
        stream.write("2.jp")
    with pytest.raises(DataError, match=r"results\.token, row 5: the line is not a caption"):
        data.read(tmp_path / "results.token", "captions")


def test_an_image_and_a_text_file_of_the_same_name_are_a_row(tmp_path):
    """This is the simplest layout of own data; each line of the text file is a caption."""
    for split, number in (("train", 2), ("val", 1), ("test", 1)):
        for i in range(number):
            write_image(tmp_path / split / f"test{i}.jpg")
            (tmp_path / split / f"test{i}.txt").write_text(f"One in {split}.\n\n Two. \n")
    write_image(tmp_path / "test/alone.jpg")
    found = data.read(tmp_path, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 2, "val": 1, "test": 1}
    row = found.split("test")[0]
    assert (row.text, row.references) == ("One in test.", ("One in test.", "Two."))
    assert row.images == (ImageFile(tmp_path / "test/test0.jpg"),)
    assert found.notes == [f"1 images in {tmp_path / 'test'} not used: they have no text file"]


def test_a_folder_without_splits_is_train(tmp_path):
    """The names of the images do not matter."""
    for i in range(4):
        write_image(tmp_path / f"test{i}.jpg", i)
        (tmp_path / f"test{i}.txt").write_text("A dog.")
    found = data.read(tmp_path, "captions")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 1}
    assert f"the name of {tmp_path.name} contains no split name" in found.notes[0]
    (tmp_path / "test2.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"test2\.txt is empty"):
        data.read(tmp_path, "captions")


def test_captions_next_to_images_have_no_other_image_root(tmp_path):
    """The option would be ignored without a message."""
    write_image(tmp_path / "1.jpg")
    (tmp_path / "1.txt").write_text("A dog.")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="Leave out --image-root"):
        data.read(tmp_path, "captions", image_root=tmp_path / "other")
    assert len(data.read(tmp_path, "captions", image_root=tmp_path).split("train")) == 1
