"""Batches are the same whoever decodes, and go on where they were left."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from madtp_cli import data
from madtp_cli.data.batches import batches
from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import decode
from madtp_cli.errors import DataError


class Numbers:
    """A task that tells which rows came, what their images show, and which process looked."""

    def collate(self, rows, processor):
        """Ids and the red of each first pixel."""
        reds = [decode(image).getchannel(0).getpixel((0, 0)) for row in rows for image in row.images]
        ids = [int(row.identifier) for row in rows]
        return {"ids": torch.tensor(ids), "reds": torch.tensor(reds), "process": torch.tensor(os.getpid())}


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    """Eleven rows with one image each, whose red is 20 x its number."""
    for number in range(11):
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return [Row(str(number), (tmp_path / f"{number}.png",), "words", 1) for number in range(11)]


def ids(made) -> list[list[int]]:
    """The row numbers of each batch."""
    return [batch["ids"].tolist() for batch in made]


def flat(made) -> list[int]:
    """The row numbers of all batches."""
    return [number for batch in ids(made) for number in batch]


def test_rows_come_in_order_and_the_last_batch_is_smaller(rows):
    """None is lost, none comes twice."""
    made = list(batches(rows, Numbers(), None, batch_size=4, workers=0))
    assert ids(made) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert made[2]["reds"].tolist() == [160, 180, 200]


@pytest.mark.parametrize("seed", [None, 7])
def test_worker_processes_change_nothing(rows, seed):
    """A result must not depend on the number of cores."""
    alone = list(batches(rows, Numbers(), None, batch_size=3, seed=seed, workers=0))
    helped = list(batches(rows, Numbers(), None, batch_size=3, seed=seed, workers=2))
    assert ids(alone) == ids(helped)
    assert [batch["reds"].tolist() for batch in alone] == [batch["reds"].tolist() for batch in helped]
    assert {int(batch["process"]) for batch in alone} == {os.getpid()}
    assert os.getpid() not in {int(batch["process"]) for batch in helped}


def test_a_seed_fixes_the_order(rows):
    """And another seed, for another epoch, gives another one."""
    order = [flat(batches(rows, Numbers(), None, batch_size=3, seed=seed, workers=0)) for seed in (1, 1, 2)]
    assert order[0] == order[1] != order[2]
    assert sorted(order[0]) == sorted(order[2]) == list(range(11))


def test_a_pass_goes_on_where_it_stopped(rows):
    """A resumed run must see the samples that the first had not."""
    whole = flat(batches(rows, Numbers(), None, batch_size=4, seed=3, workers=0))
    rest = flat(batches(rows, Numbers(), None, batch_size=4, seed=3, workers=0, start=8))
    assert rest == whole[8:]
    assert list(batches(rows, Numbers(), None, batch_size=4, start=11)) == []


def test_a_limit_takes_the_first_rows(rows):
    """Shuffled or not: the same rows take part in every epoch."""
    assert ids(batches(rows, Numbers(), None, batch_size=4, workers=0, limit=5)) == [[0, 1, 2, 3], [4]]
    shuffled = ids(batches(rows, Numbers(), None, batch_size=9, workers=0, limit=5, seed=1))
    assert sorted(shuffled[0]) == [0, 1, 2, 3, 4]
    assert len(ids(batches(rows, Numbers(), None, batch_size=4, workers=0, limit=99))) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_reported_as_itself(rows, workers):
    """Not as a traceback from inside a worker process; the batches before it are served."""
    rows[5].images[0].write_bytes(rows[5].images[0].read_bytes()[:50])
    made = batches(rows, Numbers(), None, batch_size=2, workers=workers)
    assert next(made)["ids"].tolist() == [0, 1]
    assert next(made)["ids"].tolist() == [2, 3]
    with pytest.raises(DataError) as caught:
        next(made)
    assert str(caught.value).startswith(f"Image {rows[5].images[0]} cannot be decoded: ")
    assert len(str(caught.value).splitlines()) == 2


def test_scenes_are_painted_where_they_are_needed():
    """Painting costs less than handing a picture from one process to another."""

    class Scenes(Numbers):
        def collate(self, rows, processor):
            return {"process": torch.tensor(os.getpid()), "size": torch.tensor(len(rows))}

    made = list(batches(data.read(None, "nlvr2").split("train"), Scenes(), None, batch_size=3, limit=7))
    assert [int(batch["size"]) for batch in made] == [3, 3, 1]
    assert {int(batch["process"]) for batch in made} == {os.getpid()}


@pytest.mark.parametrize("ends_in_error", [False, True])
def test_an_abandoned_pass_leaves_no_process(rows, ends_in_error):
    """A training that stops in the middle of an epoch must not keep workers alive, nor wait for them."""
    rows[5].images[0].write_bytes(b"")
    made = batches(rows, Numbers(), None, batch_size=1, workers=2)
    worker, began = int(next(made)["process"]), time.monotonic()
    if ends_in_error:
        with pytest.raises(DataError) as caught:  # kept by its name, with all its frames
            list(made)
        assert caught
    else:
        cast(Any, made).close()
    assert time.monotonic() - began < 4
    assert not Path(f"/proc/{worker}").exists()
