"""Data without a validation split get one set aside from train."""

from __future__ import annotations

from pathlib import Path

from madtp_cli.data.assembling import CARVED_MOST, carve

from madtp_cli import data
from madtp_cli.data.dataset import Row
from tests.data.conftest import blip_rows


def pairs(number: int, images: int) -> list[Row]:
    """Rows of which every (number / images) share both images."""
    return [Row(str(i), (Path(f"{i % images}-0"), Path(f"{i % images}-1")), "x", 1) for i in range(number)]


def test_a_tenth_is_set_aside_and_said(write_blip):
    """Choosing on the test split instead would spoil the figure that is reported."""
    found = data.read(write_blip({"train": blip_rows("train", 40), "test": blip_rows("test", 4)}), "nlvr2")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 36, "val": 4, "test": 4}
    assert found.notes == ["no validation split: 4 of 40 train rows set aside for it, no image in both"]


def test_train_is_the_same_whether_val_is_asked_for_or_not(write_blip):
    """Else a model would be chosen on what it was trained on."""
    folder = write_blip({"train": blip_rows("train", 40)})
    assert data.read(folder, "nlvr2", ["train"]).splits == {"train": data.read(folder, "nlvr2").split("train")}
    assert data.read(folder, "nlvr2", ["val"]).splits == {"val": data.read(folder, "nlvr2").split("val")}


def test_no_image_is_in_both_and_no_row_is_lost():
    """Rows share images directly and through others: a-b, b-c, c-d must stay together."""
    chains = [[Row(f"{c}.{i}", (Path(f"{c}.{i}"), Path(f"{c}.{i + 1}")), "x", 1) for i in range(3)] for c in range(50)]
    rows = [chain[i] for i in (0, 2, 1) for chain in chains]
    train, val = carve(rows)
    assert len(val) == 15
    assert not {image for row in train for image in row.images} & {image for row in val for image in row.images}
    assert sorted(row.identifier for row in train + val) == sorted(row.identifier for row in rows)


def test_the_same_rows_are_set_aside_every_time():
    """A second run is to be compared with the first."""
    assert carve(pairs(200, 100)) == carve(pairs(200, 100))
    assert carve(pairs(200, 100))[1] != carve(pairs(200, 100), seed=1)[1]


def test_no_more_than_needed_is_set_aside():
    """5,000 rows tell validation accuracy to 0.7 points; more would be lost for training."""
    assert len(carve(pairs(60_000, 60_000))[1]) == CARVED_MOST == 5_000


def test_rows_that_all_share_images_stay_in_train(write_blip):
    """Then there is nothing to validate on, and the note says so."""
    found = data.read(write_blip({"train": blip_rows("train", 2)}), "nlvr2")
    assert {split: len(rows) for split, rows in found.splits.items()} == {"train": 2}
    assert "none could be set aside" in found.notes[0]


def test_a_data_set_of_tests_alone_is_read_as_it_is(write_blip):
    """Enough to evaluate on."""
    found = data.read(write_blip({"test": blip_rows("test", 2)}), "nlvr2")
    assert list(found.splits) == ["test"]
    assert found.notes == []
