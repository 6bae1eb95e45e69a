"""Which rows each of several processes works on.

Usually each process takes its part of the rows. Rows of webdataset shards have an owner: the process that reads their
shard. A machine then needs only the shards of its own processes, so a data set need not fit on one disk. Rows with
owners are in the order of the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from madtp_cli import processes
from madtp_cli.errors import DataError, UsageError

#: Returns a part of a sequence with at most a number of items.
Choose = Callable[[Sequence[Any], int], Sequence[Any]]


def assign(listings: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return the owner of each shard, in the order of the owners: a process that has it, with the fewest shards so far.

    Args:
        listings: The names of the shards that each process finds.

    >>> assign([["a.tar", "b.tar", "c.tar"], ["b.tar", "c.tar"]])
    {'a.tar': 0, 'c.tar': 0, 'b.tar': 1}
    """
    owned: list[list[str]] = [[] for _ in listings]
    for name in sorted({name for names in listings for name in names}):
        able = [number for number, names in enumerate(listings) if name in names]
        owned[min(able, key=lambda number: len(owned[number]))].append(name)
    return {name: number for number, names in enumerate(owned) for name in names}


def owners(rows: Sequence[Any]) -> list[int] | None:
    """Return the owner of each row; None if the rows have none."""
    if processes.count() == 1 or not len(rows) or getattr(rows[0].images[0], "owner", None) is None:
        return None
    return [row.images[0].owner for row in rows]


def part(rows: Sequence[Any]) -> Sequence[Any]:
    """Return the rows of this process."""
    found = owners(rows)
    if found is None:
        return processes.part_of(rows)
    return [row for row, owner in zip(rows, found, strict=True) if owner == processes.rank()]


def readable(rows: Sequence[Any], split: str) -> Sequence[Any]:
    """Return the rows that this process can read: all of them, or those of its own shards.

    Args:
        rows: The rows.
        split: Name of the split, for the message of an error.

    Raises:
        DataError: It has no shard.
    """
    found = owners(rows)
    if found is None:
        return rows
    own = [rows[place] for place in places_of(found, processes.rank())]
    if not own:
        raise _without_shard(processes.rank(), split)
    return own


def _without_shard(rank: int, split: str) -> DataError:
    return DataError(
        f"Process {rank} of {processes.count()} has no {split} samples: a shard is read by one process.\n"
        "Give at least as many shards as processes, or start fewer processes."
    )


def some(rows: Sequence[Any], number: int, choose: Choose) -> Sequence[Any]:
    """Return at most `number` rows; of rows with owners, as many of each owner as possible.

    Args:
        rows: The rows.
        number: Largest number of rows.
        choose: Chooses from all rows, or from the numbers of the rows of one owner.
    """
    found = owners(rows)
    if found is None:
        return choose(rows, number)
    chosen = list[int]()
    for owner in range(processes.count()):
        chosen += choose(places_of(found, owner), len(range(owner, number, processes.count())))
    return [rows[place] for place in chosen]


def places_of(found: Sequence[int], owner: int) -> list[int]:
    """Return the numbers of the rows of an owner."""
    return [number for number, of_row in enumerate(found) if of_row == owner]


def steps(rows: Sequence[Any], size: int) -> int:
    """Return the number of training batches of an epoch.

    Args:
        rows: The rows.
        size: Samples of a batch, of all processes together.

    Raises:
        DataError: A process has no rows.
        UsageError: A batch has fewer samples than there are processes.
    """
    found, count = owners(rows), processes.count()
    if found is None:
        _require_enough(len(rows), size)
        full, rest = divmod(len(rows), size)
        return full + (rest >= count)
    numbers = [found.count(owner) for owner in range(count)]
    if 0 in numbers:
        raise _without_shard(numbers.index(0), "train")
    return max(1, min(number // part for number, part in zip(numbers, _sizes(size), strict=True)))


def _require_enough(rows: int, size: int) -> None:
    """Check that each process has a sample of the first batch; otherwise there would be no batch."""
    count = processes.count()
    if size < count:
        raise UsageError(
            f"A batch of {size} {'sample' if size == 1 else 'samples'} cannot be shared by {count} processes.\n"
            f"Give --batch-size {count} or more, or start fewer processes."
        )
    if rows < count:
        raise DataError(
            f"There are fewer training samples than processes: {rows} and {count}.\n"
            "Give at least one sample for each process, or start fewer processes."
        )


def _sizes(size: int) -> list[int]:
    """Return how many samples of a batch each process has."""
    count = processes.count()
    return [max(1, size * (number + 1) // count - size * number // count) for number in range(count)]


def batches(order: Sequence[int], rows: Sequence[Any], size: int) -> list[list[int]]:
    """Return this process's part of each training batch, as row numbers; every process has the same number of batches.

    Args:
        order: The row numbers in the order of this epoch.
        rows: The rows.
        size: Samples of a batch, of all processes together.

    Raises:
        DataError: A process has no rows.
    """
    found, count = owners(rows), processes.count()
    if found is None:
        whole = [list(order[start : start + size]) for start in range(0, len(order), size)]
        return [processes.part_of(batch) for batch in whole if len(batch) >= count]
    mine, most = [number for number in order if found[number] == processes.rank()], _sizes(size)[processes.rank()]
    return [mine[step * most : (step + 1) * most] for step in range(steps(rows, size))]
