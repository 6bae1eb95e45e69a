"""For data without a validation split, train rows are held out."""

from __future__ import annotations

from pathlib import Path

from madtp_cli import data
from madtp_cli.data.dataset import Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.data.validation_split import MAX_HELD_OUT, hold_out_validation
from tests.data.conftest import blip_rows

#: Identifiers of the rows held out of `pairs(40, 20)`.
RECORDED = ["13", "18", "33", "38"]


def image(name: str) -> ImageFile:
    """Return an image file, which does not exist."""
    return ImageFile(Path(name))


def pairs(number: int, images: int) -> list[Row]:
    """Return rows of which every (number / images) share both images."""
    return [Row(str(i), (image(f"{i % images}-0"), image(f"{i % images}-1")), "x", 1) for i in range(number)]


def test_a_tenth_of_train_becomes_validation_with_a_note(write_blip):
    """Choosing a model on the test split instead would make its test result too good."""
    found = data.read(write_blip({"train": blip_rows("train", 40), "test": blip_rows("test", 4)}), "statements")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 36, "val": 4, "test": 4}
    assert found.notes == ["no validation split: 4 of 40 train rows held out; no image is in both splits"]


def test_train_does_not_depend_on_whether_val_is_read(write_blip):
    """Otherwise a model would be chosen on rows that it was trained on."""
    folder = write_blip({"train": blip_rows("train", 40)})
    assert data.read(folder, "statements", ["train"]).splits == {
        "train": data.read(folder, "statements").split("train")
    }
    assert data.read(folder, "statements", ["val"]).splits == {"val": data.read(folder, "statements").split("val")}


def test_no_image_is_in_both_splits_and_no_row_is_lost():
    """Rows share images directly and through others: a-b, b-c and c-d must stay together."""
    chains = [
        [Row(f"{c}.{i}", (image(f"{c}.{i}"), image(f"{c}.{i + 1}")), "x", 1) for i in range(3)] for c in range(50)
    ]
    rows = [chain[i] for i in (0, 2, 1) for chain in chains]
    train, val = hold_out_validation(rows)
    assert len(val) == 15
    assert not {image for row in train for image in row.images} & {image for row in val for image in row.images}
    assert sorted(row.identifier for row in train + val) == sorted(row.identifier for row in rows)


def test_the_same_rows_are_held_out_every_time():
    """A second run must be comparable with the first."""
    assert hold_out_validation(pairs(200, 100)) == hold_out_validation(pairs(200, 100))
    assert hold_out_validation(pairs(200, 100))[1] != hold_out_validation(pairs(200, 100), seed=1)[1]


def test_at_most_5000_rows_are_held_out():
    """5,000 rows give the validation accuracy to 0.7 points; more would be lost for training."""
    assert len(hold_out_validation(pairs(60_000, 60_000))[1]) == MAX_HELD_OUT == 5_000


def test_rows_that_all_share_images_stay_in_train(write_blip):
    """There is no validation split then, and the note says so."""
    found = data.read(write_blip({"train": blip_rows("train", 2)}), "statements")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 2}
    assert "no train rows held out" in found.notes[0]


def test_data_with_only_a_test_split_are_read_unchanged(write_blip):
    """This is enough for an evaluation."""
    found = data.read(write_blip({"test": blip_rows("test", 2)}), "statements")
    assert list(found.splits) == ["test"]
    assert found.notes == []


def test_the_held_out_rows_never_change():
    """Results of released checkpoints depend on them, so the rows are recorded here."""
    assert [row.identifier for row in hold_out_validation(pairs(40, 20))[1]] == RECORDED
