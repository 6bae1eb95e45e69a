"""Folders of images without texts, and the images of data that have texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from madtp_cli import data
from madtp_cli.data.validate import validate
from madtp_cli.errors import DataError
from madtp_cli.progress import ProgressReporter


def images(folder: Path, *names: str) -> Path:
    """Write small images of different colours."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / name)
    return folder


def identifiers(path: Path, **options: Path) -> dict[str, list[str]]:
    """Return the identifiers of the rows of each split."""
    splits = data.read(path, "images", **options).splits  # type: ignore[arg-type]
    return {split: [row.identifier for row in rows] for split, rows in splits.items()}


def test_split_folders_hold_images_at_any_depth(tmp_path: Path) -> None:
    """So a folder by classes works too; hidden files are left out."""
    images(tmp_path, "train/b/2.jpg", "train/a/1.png", "val/3.jpg", "test/4.JPG", "test/.5.jpg")
    assert identifiers(tmp_path) == {
        "train": ["train/a/1.png", "train/b/2.jpg"],
        "val": ["val/3.jpg"],
        "test": ["test/4.JPG"],
    }


def test_a_folder_without_splits_is_divided_always_in_the_same_way(tmp_path: Path) -> None:
    """A fifth becomes the test split, a tenth of the others the validation split."""
    images(tmp_path, *(f"{number:02}.png" for number in range(50)))
    found = identifiers(tmp_path)
    assert {split: len(names) for split, names in found.items()} == {"train": 36, "val": 4, "test": 10}
    assert sorted(name for names in found.values() for name in names) == [f"{number:02}.png" for number in range(50)]
    assert identifiers(tmp_path) == found
    assert any("10 of 50" in note for note in data.read(tmp_path, "images").notes)


def test_annotation_files_state_the_splits_of_their_images(tmp_path: Path) -> None:
    """An image of several captions is one row; texts are left out."""
    images(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "images/unused.jpg")
    for split, names in (("train", "aabb"), ("val", "c"), ("test", "c")):
        rows = [{"image": f"images/{name}.jpg", "caption": f"text {number}"} for number, name in enumerate(names)]
        (tmp_path / f"captions_{split}.json").write_text(json.dumps(rows))
    dataset = data.read(tmp_path, "images")
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {"train": 2, "val": 1, "test": 1}
    assert {row.text for rows in dataset.splits.values() for row in rows} == {""}


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    """The message names the layout that is looked for."""
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"folder of images \(train/1.jpg\)"):
        data.read(tmp_path, "images", task="embedding")


def test_data_reports_the_images_of_a_plain_folder(tmp_path: Path) -> None:
    """`madtp data` names the task that can use it."""
    images(tmp_path, "train/1.jpg", "test/2.jpg", "val/3.jpg")
    report = validate(tmp_path, {"embedding": "images", "caption": "captions"}, ProgressReporter())
    assert {task: sum(part.rows for part in of.splits.values()) for task, of in report.tasks.items()} == {
        "embedding": 3
    }
