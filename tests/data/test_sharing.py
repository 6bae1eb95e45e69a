"""Rows of shards belong to the process that reads their shard."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from madtp_cli import processes
from madtp_cli.data import sharing
from madtp_cli.errors import DataError, UsageError


def rows(*numbers: int) -> list[Any]:
    """Return rows, as many of each owner as given; their text is their number."""
    found = [owner for owner, number in enumerate(numbers) for _ in range(number)]
    return [SimpleNamespace(images=[SimpleNamespace(owner=owner)], text=place) for place, owner in enumerate(found)]


@pytest.fixture
def as_process(monkeypatch):
    """Return a function that makes this process one of two."""

    def become(rank: int) -> None:
        monkeypatch.setattr(processes, "count", lambda: 2)
        monkeypatch.setattr(processes, "rank", lambda: rank)

    return become


def test_every_row_is_evaluated_once_by_its_owner(as_process) -> None:
    """The parts of all processes in order are the rows, so predictions can be joined."""
    everything = rows(5, 3)
    parts: list[Any] = []
    for rank in range(2):
        as_process(rank)
        parts += sharing.part(everything)
    assert parts == everything


def test_some_rows_are_of_all_owners(as_process) -> None:
    """A limit must not leave a process without rows."""
    as_process(0)
    chosen = sharing.some(rows(5, 3), 5, lambda own, number: own[:number])
    assert Counter(row.images[0].owner for row in chosen) == {0: 3, 1: 2}
    assert [row.text for row in chosen] == [0, 1, 2, 5, 6]


def test_all_processes_have_the_same_number_of_batches(as_process) -> None:
    """Otherwise one would wait for the others for ever. Batches have no row of another owner, and no row twice."""
    everything, order = rows(9, 6), [14, 3, 8, 0, 9, 1, 10, 2, 11, 4, 12, 5, 13, 6, 7]
    numbers = []
    for rank in range(2):
        as_process(rank)
        batches = sharing.batches(order, everything, 5)
        numbers.append(len(batches))
        assert [len(batch) for batch in batches] == [2 + rank] * len(batches)
        used = [number for batch in batches for number in batch]
        assert {everything[number].images[0].owner for number in used} == {rank}
        assert len(set(used)) == len(used)
    assert numbers == [2, 2] == [sharing.steps(everything, 5)] * 2


def test_a_process_without_a_shard_is_an_error(as_process) -> None:
    """It would have nothing to train on."""
    as_process(0)
    with pytest.raises(DataError, match="Process 1 of 2 has no train samples"):
        sharing.batches([0, 1], rows(2), 2)


def test_a_process_reads_its_own_shards_alone(as_process) -> None:
    """Those of the others are on other machines."""
    as_process(1)
    assert [row.text for row in sharing.readable(rows(2, 3), "val")] == [2, 3, 4]
    with pytest.raises(DataError, match="Process 1 of 2 has no val samples"):
        sharing.readable(rows(2), "val")
    plain = [SimpleNamespace(images=[SimpleNamespace()], text=place) for place in range(5)]
    assert sharing.readable(plain, "val") == plain


def test_a_batch_has_a_sample_for_each_process(as_process) -> None:
    """An epoch without batches would be repeated without end."""
    as_process(0)
    plain = [SimpleNamespace(images=[SimpleNamespace()], text=place) for place in range(5)]
    with pytest.raises(UsageError, match=r"(?s)batch of 1 sample cannot be shared by 2.*--batch-size 2"):
        sharing.steps(plain, 1)
    with pytest.raises(DataError, match="fewer training samples than processes: 1 and 2"):
        sharing.steps(plain[:1], 2)
    assert [sharing.steps(plain, size) for size in (2, 3, 9)] == [2, 2, 1]


def test_rows_without_owners_are_divided_evenly(as_process) -> None:
    """All other data are readable by every process."""
    as_process(1)
    plain = [SimpleNamespace(images=[SimpleNamespace()], text=place) for place in range(5)]
    assert [row.text for row in sharing.part(plain)] == [2, 3, 4]
    assert sharing.batches([4, 3, 2, 1, 0], plain, 2) == [[3], [1]]
