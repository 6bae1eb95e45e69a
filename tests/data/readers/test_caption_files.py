"""Captions as Flickr30k publishes them, and as a folder of images and text files."""

from __future__ import annotations

from pathlib import Path

import pytest

from madtp_cli import data
from madtp_cli.errors import DataError
from tests.data.conftest import picture


def write_token(folder: Path, number: int, name: str = "results.token") -> Path:
    """Two captions of each picture."""
    lines = [f"{i}.jpg#{n}\tCaption {n} of {i} .\n" for i in range(number) for n in (0, 1)]
    (folder / name).write_text("".join(lines))
    for i in range(number):
        picture(folder / f"images/{i}.jpg", 20 * i)
    return folder


@pytest.mark.parametrize("task", ["caption", "retrieval"])
def test_flickr_captions_are_one_row_per_image(tmp_path, task):
    """Five lines are about one picture."""
    found = data.read(write_token(tmp_path, 10), task)
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 9, "val": 1}
    row = found.split("train")[0]
    assert (row.text, row.references) == ("Caption 0 of 0 .", ("Caption 0 of 0 .", "Caption 1 of 0 ."))
    assert row.images == (tmp_path / "images/0.jpg",)
    assert "results.token tells no split" in found.notes[0]


def test_lists_beside_flickr_captions_are_the_splits(tmp_path):
    """Everybody reports the same 1,000 test images."""
    write_token(tmp_path, 4)
    (tmp_path / "train.txt").write_text("0.jpg\n")
    (tmp_path / "val.txt").write_text("1\n")
    (tmp_path / "test.txt").write_text("2\n")
    found = data.read(tmp_path, "retrieval")
    assert {split: [Path(str(row.images[0])).stem for row in rows] for split, rows in found.splits.items()} == {
        "train": ["0"],
        "val": ["1"],
        "test": ["2"],
    }
    assert found.notes == ["splits by test.txt, train.txt, val.txt; other images left out"]


def test_a_line_that_is_no_caption_is_named(tmp_path):
    """A cut-off download ends in the middle of a line."""
    write_token(tmp_path, 2)
    with (tmp_path / "results.token").open("a") as stream:
        stream.write("2.jp")
    with pytest.raises(DataError, match=r"results\.token, row 5: it is no caption"):
        data.read(tmp_path / "results.token", "caption")


def test_an_image_and_a_text_file_of_its_name_are_a_row(tmp_path):
    """The simplest data of one's own; each line of the text is a caption."""
    for split, number in (("train", 2), ("val", 1), ("test", 1)):
        for i in range(number):
            picture(tmp_path / split / f"test{i}.jpg")
            (tmp_path / split / f"test{i}.txt").write_text(f"One in {split}.\n\n Two. \n")
    picture(tmp_path / "test/alone.jpg")
    found = data.read(tmp_path, "caption")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 2, "val": 1, "test": 1}
    row = found.split("test")[0]
    assert (row.text, row.references) == ("One in test.", ("One in test.", "Two."))
    assert row.images == (tmp_path / "test/test0.jpg",)
    assert found.notes == [f"1 images in {tmp_path / 'test'} left out: they have no text file"]


def test_a_folder_without_splits_is_train(tmp_path):
    """Whatever the images are called."""
    for i in range(4):
        picture(tmp_path / f"test{i}.jpg", i)
        (tmp_path / f"test{i}.txt").write_text("A dog.")
    found = data.read(tmp_path, "retrieval")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 3, "val": 1}
    assert f"{tmp_path.name} tells no split" in found.notes[0]
    (tmp_path / "test2.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"test2\.txt is empty"):
        data.read(tmp_path, "retrieval")


def test_captions_beside_images_have_no_other_image_root(tmp_path):
    """It would be ignored in silence."""
    picture(tmp_path / "1.jpg")
    (tmp_path / "1.txt").write_text("A dog.")
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="Leave out --image-root"):
        data.read(tmp_path, "caption", image_root=tmp_path / "other")
    assert len(data.read(tmp_path, "caption", image_root=tmp_path).split("train")) == 1
