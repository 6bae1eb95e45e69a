"""Batches do not depend on which process decodes the images, and a pass can be continued."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from madtp_cli.data.batches import batches
from madtp_cli.data.dataset import Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.data.pixels import decode
from madtp_cli.errors import DataError
from madtp_cli.scenes import splits


class RowNumbers:
    """A task whose batches tell which rows they contain, what the images show, and which process decoded them."""

    def collate(self, rows, processor):
        """Return the numbers of the rows, the red of the first pixel of each image, and the process."""
        reds = [decode(image).getchannel(0).getpixel((0, 0)) for row in rows for image in row.images]
        ids = [int(row.identifier) for row in rows]
        return {"ids": torch.tensor(ids), "reds": torch.tensor(reds), "process": torch.tensor(os.getpid())}


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    """Eleven rows with one image each, whose red is 20 times the number of the row."""
    for number in range(11):
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return [Row(str(number), (ImageFile(tmp_path / f"{number}.png"),), "words", 1) for number in range(11)]


def ids(made) -> list[list[int]]:
    """Return the row numbers of each batch."""
    return [batch["ids"].tolist() for batch in made]


def flat(made) -> list[int]:
    """Return the row numbers of all batches."""
    return [number for batch in ids(made) for number in batch]


def test_rows_keep_their_order_and_the_last_batch_is_smaller(rows):
    """No row is lost or repeated."""
    made = list(batches(rows, RowNumbers(), None, batch_size=4, workers=0))
    assert ids(made) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert made[2]["reds"].tolist() == [160, 180, 200]


@pytest.mark.parametrize("seed", [None, 7])
def test_worker_processes_do_not_change_the_batches(rows, seed):
    """A result must not depend on the number of cores."""
    alone = list(batches(rows, RowNumbers(), None, batch_size=3, seed=seed, workers=0))
    helped = list(batches(rows, RowNumbers(), None, batch_size=3, seed=seed, workers=2))
    assert ids(alone) == ids(helped)
    assert [batch["reds"].tolist() for batch in alone] == [batch["reds"].tolist() for batch in helped]
    assert {int(batch["process"]) for batch in alone} == {os.getpid()}
    assert os.getpid() not in {int(batch["process"]) for batch in helped}


def test_the_seed_determines_the_order(rows):
    """Another seed, for another epoch, gives another order."""
    order = [flat(batches(rows, RowNumbers(), None, batch_size=3, seed=seed, workers=0)) for seed in (1, 1, 2)]
    assert order[0] == order[1] != order[2]
    assert sorted(order[0]) == sorted(order[2]) == list(range(11))


def test_a_pass_can_continue_where_it_stopped(rows):
    """A resumed run uses the samples that the first run did not."""
    whole = flat(batches(rows, RowNumbers(), None, batch_size=4, seed=3, workers=0))
    rest = flat(batches(rows, RowNumbers(), None, batch_size=4, seed=3, workers=0, start=8))
    assert rest == whole[8:]
    assert list(batches(rows, RowNumbers(), None, batch_size=4, start=11)) == []


def test_a_limit_takes_the_first_rows(rows):
    """Shuffled or not, every epoch uses the same rows."""
    assert ids(batches(rows, RowNumbers(), None, batch_size=4, workers=0, limit=5)) == [[0, 1, 2, 3], [4]]
    shuffled = ids(batches(rows, RowNumbers(), None, batch_size=9, workers=0, limit=5, seed=1))
    assert sorted(shuffled[0]) == [0, 1, 2, 3, 4]
    assert len(ids(batches(rows, RowNumbers(), None, batch_size=4, workers=0, limit=99))) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_a_plain_error(rows, workers):
    """The error is not a traceback from a worker process, and the batches before it are returned."""
    rows[5].images[0].path.write_bytes(rows[5].images[0].path.read_bytes()[:50])
    made = batches(rows, RowNumbers(), None, batch_size=2, workers=workers)
    assert next(made)["ids"].tolist() == [0, 1]
    assert next(made)["ids"].tolist() == [2, 3]
    with pytest.raises(DataError) as caught:
        next(made)
    assert str(caught.value).startswith(f"Image {rows[5].images[0]} cannot be decoded: ")
    assert len(str(caught.value).splitlines()) == 2


def test_images_that_open_fast_need_no_workers():
    """Painting a scene takes less time than sending it from one process to another."""

    class ProcessOnly(RowNumbers):
        def collate(self, rows, processor):
            return {"process": torch.tensor(os.getpid()), "size": torch.tensor(len(rows))}

    made = list(batches(splits.rows("nlvr2", "train", 20_000), ProcessOnly(), None, batch_size=3, limit=7))
    assert [int(batch["size"]) for batch in made] == [3, 3, 1]
    assert {int(batch["process"]) for batch in made} == {os.getpid()}


@pytest.mark.parametrize("ends_in_error", [False, True])
def test_an_abandoned_pass_leaves_no_process(rows, ends_in_error):
    """A training that stops in the middle of an epoch must not keep workers alive or wait for them."""
    rows[5].images[0].path.write_bytes(b"")
    made = batches(rows, RowNumbers(), None, batch_size=1, workers=2)
    worker, began = int(next(made)["process"]), time.monotonic()
    if ends_in_error:
        with pytest.raises(DataError) as caught:  # keeps the traceback and its frames alive
            list(made)
        assert caught
    else:
        cast(Any, made).close()
    assert time.monotonic() - began < 4
    assert not Path(f"/proc/{worker}").exists()
