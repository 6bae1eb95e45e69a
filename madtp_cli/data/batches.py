"""Batches of ready tensors, the same whoever decodes the images."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from madtp_cli.data.dataset import Row
from madtp_cli.errors import DataError
from madtp_cli.scenes.generator import Scene

Batch = dict[str, Tensor]
#: More do not help: the model takes longer than four workers need to decode a batch.
MOST_WORKERS = 4


class Collates(Protocol):
    """The part of a task that is needed here."""

    def collate(self, rows: Sequence[Row], processor: Any) -> Batch:
        """Make the model's arguments of some rows."""
        ...


def batches(
    rows: Sequence[Row],
    task: Collates,
    processor: Any,
    *,
    batch_size: int,
    seed: int | str | None = None,
    workers: int | None = None,
    start: int = 0,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Yield one pass over the rows in batches; the last one may be smaller.

    Args:
        rows: A split; lazy splits are drawn batch by batch.
        task: Makes a batch of rows.
        processor: Holds the tokenizer and the image processor.
        batch_size: Samples per batch.
        seed: Shuffles; another seed for each epoch. None keeps the order of the rows.
        workers: Processes that decode. None: none for scenes, which are cheap to paint, and
            for files one per core but the one that runs the model. Does not change the batches.
        start: Samples of this pass to skip, to go on where an earlier pass stopped.
        limit: Use only the first so many rows, shuffled or not.

    Raises:
        DataError: An image cannot be decoded.
    """
    count = len(rows) if limit is None else min(limit, len(rows))
    order = _order(count, seed)[start:]
    plan = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    loader = DataLoader(
        _Planned(rows, task, processor),
        batch_size=None,
        sampler=cast(Any, plan),  # a plain list of lists does; torch's annotation is narrower
        num_workers=min(_workers(rows) if workers is None else workers, len(plan)),
        collate_fn=_as_it_is,
    )
    with _quiet_fork():
        made = iter(loader)
    try:
        for batch in made:
            if isinstance(batch, DataError):
                raise batch
            yield batch
    finally:
        # Ends the workers now. An error's traceback would keep this name, and torch's clean-up, when it
        # comes late, takes five seconds per worker and speaks on standard error.
        del made


def _order(count: int, seed: int | str | None) -> list[int]:
    if seed is None:
        return list(range(count))
    rng = random.Random(f"order/{seed}")
    return sorted(range(count), key=lambda _: rng.random())


def _workers(rows: Sequence[Row]) -> int:
    if not rows or isinstance(rows[0].images[0], Scene):
        return 0
    return min(MOST_WORKERS, (os.cpu_count() or 1) - 1)


def _as_it_is(batch: Any) -> Any:
    return batch


@contextlib.contextmanager
def _quiet_fork() -> Iterator[None]:
    """Spare the user the tokenizers library's warning about worker processes."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ.setdefault(name, "false")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


class _Planned(Dataset[Any]):
    """A batch for each list of row numbers.

    An error is handed over, not raised: torch would wrap it in a worker's traceback.
    """

    def __init__(self, rows: Sequence[Row], task: Collates, processor: Any) -> None:
        self.rows, self.task, self.processor = rows, task, processor

    def __getitem__(self, numbers: list[int]) -> Batch | DataError:
        try:
            return self.task.collate([self.rows[number] for number in numbers], self.processor)
        except DataError as error:
            return error
