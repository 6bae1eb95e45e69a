"""Folders of images by class, the names of classes, and templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from madtp_cli import data
from madtp_cli.data import class_files
from madtp_cli.data.validate import validate
from madtp_cli.errors import DataError
from madtp_cli.progress import ProgressReporter
from tests.data.conftest import write_image

CLASSES = ("sea_horse", "dog", "cat")


def write(folder: Path, number: int = 5) -> Path:
    """Write images of each class, and a file that is none."""
    for name in CLASSES:
        for image in range(number):
            write_image(folder / name / f"{image}.png")
    (folder / "readme.txt").write_text("not an image")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train and test images, as CIFAR-10 is usually unpacked."""
    write(tmp_path / "train", 10)
    write(tmp_path / "test", 2)
    return tmp_path


def test_split_folders_and_classes_are_read(folder: Path) -> None:
    """Labels are the numbers of the folders in alphabetical order; validation rows are held out."""
    found = data.read(folder, "classes")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 27, "val": 3, "test": 6}
    assert found.answers == ("cat", "dog", "sea_horse")
    row = found.split("test")[5]
    assert (row.identifier, row.text, row.label) == ("test/sea_horse/1.png", "sea_horse", 2)


def test_one_level_gets_a_test_split(tmp_path: Path) -> None:
    """A note states how many images are held out, and no image is in two splits."""
    found = data.read(write(tmp_path), "classes")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 11, "val": 1, "test": 3}
    assert any("held out as test split" in note for note in found.notes)
    assert len({row.images for rows in found.splits.values() for row in rows}) == 15
    again = data.read(tmp_path, "classes")
    assert again.splits == found.splits


def test_madtp_data_shows_the_classes(folder: Path) -> None:
    """The balance of the classes is what a user wants to see."""
    report = validate(folder, {"classification": "classes"}, ProgressReporter())
    shares = report.tasks["classification"].splits["test"].most_common_answers or []
    assert shares[0].percent == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("feline\ncanine\nhippocampus\n", ("feline", "canine", "hippocampus")),
        ("dog\tcanine\nsea_horse\thippocampus\ncat\tfeline\n", ("feline", "canine", "hippocampus")),
        ('{"dog": "canine", "cat": "feline", "sea_horse": "hippocampus"}', ("feline", "canine", "hippocampus")),
    ],
)
def test_a_file_names_the_classes(folder: Path, tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    """In the order of the folders, or by folder."""
    file = tmp_path / "names"
    file.write_text(text)
    found = data.read(folder, "classes")
    assert class_files.with_class_names(found, file).answers == names
    assert class_files.with_class_names(found, None).answers == ("cat", "dog", "sea horse")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("feline\ncanine\n", "has 2 names, but the data have 3 classes"),
        ("dog\tcanine\ncat\tfeline\n", "no name for 1 of the 3 classes, such as sea_horse"),
        ('{"dog": 1}', "the name of dog is not a text"),
        ('{"dog"', "not valid JSON"),
    ],
)
def test_names_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, text: str, problem: str) -> None:
    """A wrong order would give a wrong accuracy without an error."""
    file = tmp_path / "names"
    file.write_text(text)
    with pytest.raises(DataError, match=problem):
        class_files.with_class_names(data.read(folder, "classes"), file)


def test_templates_are_read_and_checked(tmp_path: Path) -> None:
    """The message names the row."""
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {}.\n\nart of the {}\n")
    assert class_files.templates(file) == ("a photo of a {}.", "art of the {}")
    file.write_text("a photo of a {}.\nart\n")
    with pytest.raises(DataError, match="row 2: a template needs {} once"):
        class_files.templates(file)
    file.write_text("\n")
    with pytest.raises(DataError, match="has no templates"):
        class_files.templates(file)


def test_two_folders_of_one_split_are_refused(folder: Path) -> None:
    """Their classes could overlap."""
    write(folder / "my-test", 1)
    with pytest.raises(DataError, match="both the test split"):
        data.read(folder, "classes")


def test_an_image_root_is_refused(folder: Path) -> None:
    """The images are where the classes are."""
    with pytest.raises(DataError, match="Leave out --image-root"):
        data.read(folder, "classes", image_root=folder)
