"""Batches of tensors for the model; worker processes decode the images but do not change the result."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from madtp_cli.data import sharing
from madtp_cli.data.dataset import Row
from madtp_cli.errors import MadtpError

Batch = dict[str, Tensor]
#: More workers do not help: the model takes longer for a batch than four workers need to decode one.
MAX_WORKERS = 4


class Collator(Protocol):
    """The part of a task that builds a batch."""

    def collate(self, rows: Sequence[Row], processor: Any) -> Batch:
        """Return the arguments of the model's forward pass for some rows."""
        ...


def batches(
    rows: Sequence[Row],
    task: Collator,
    processor: Any,
    *,
    batch_size: int,
    seed: int | str | None = None,
    order: Sequence[int] | None = None,
    workers: int | None = None,
    start: int = 0,
    limit: int | None = None,
    shared: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of one pass over the rows; the last batch may be smaller.

    Args:
        rows: The rows of a split, which may be lazy.
        task: Builds a batch from rows.
        processor: Holds the tokenizer and the image processor.
        batch_size: Samples per batch.
        seed: Shuffles the rows; use another seed for each epoch. None keeps their order.
        order: The numbers of all rows in the order to use, instead of `seed`.
        workers: Processes that decode images; None for a number that suits the images. It does not change the batches.
        start: Samples of this pass to skip, to continue where an earlier pass stopped.
        limit: Use only the first `limit` rows, shuffled or not; not for a given order.
        shared: Whether the processes of a run share each batch, so that this one gets only its part. A last batch with
            fewer samples than processes is left out.

    Raises:
        DataError: An image cannot be decoded.
    """
    count = len(rows) if limit is None else min(limit, len(rows))
    order = _order(count, seed) if order is None else order
    row_numbers = [list(order[first : first + batch_size]) for first in range(start, len(order), batch_size)]
    if shared:
        row_numbers = sharing.batches(order, rows, batch_size)[start // batch_size :]
    workers = _default_workers(rows) if workers is None else workers
    return _load(_BatchDataset(rows, task, processor), row_numbers, min(workers, len(row_numbers)))


def _load(dataset: _BatchDataset, row_numbers: list[list[int]], workers: int) -> Iterator[Batch]:
    loader = DataLoader(
        dataset,
        batch_size=None,
        sampler=cast(Any, row_numbers),  # a list of lists works, though torch's annotation does not allow it
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_ignore_interrupts,
        generator=torch.Generator(),  # each new iterator would draw a number from the global random state
    )
    with _without_fork_warning():
        iterator = iter(loader)
    try:
        for batch in iterator:
            if isinstance(batch, MadtpError):
                raise batch
            yield batch
    finally:
        # Stop the workers now. The traceback of an error would keep the iterator alive, and a late clean-up by torch
        # waits five seconds for each worker and prints to standard error.
        del iterator


def _order(count: int, seed: int | str | None) -> list[int]:
    if seed is None:
        return list(range(count))
    rng = random.Random(f"order/{seed}")
    return sorted(range(count), key=lambda _: rng.random())


def _default_workers(rows: Sequence[Row]) -> int:
    """No workers for images that open fast, otherwise one per core, except for the core that runs the model."""
    if not rows or rows[0].images[0].opens_fast:
        return 0
    return min(MAX_WORKERS, (os.cpu_count() or 1) - 1)


def _unchanged(batch: Any) -> Any:
    return batch


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the main process decides what the run finishes, and stops them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _without_fork_warning() -> Iterator[None]:
    """Prevent the warning of the tokenizers library about worker processes."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ.setdefault(name, "false")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


class _BatchDataset(Dataset[Any]):
    """Maps a list of row numbers to a batch.

    A MadtpError is returned and not raised, because torch would wrap it in the traceback of a worker process.
    """

    def __init__(self, rows: Sequence[Row], task: Collator, processor: Any) -> None:
        self.rows, self.task, self.processor = rows, task, processor

    def __getitem__(self, row_numbers: list[int]) -> Batch | MadtpError:
        try:
            return self.task.collate([self.rows[number] for number in row_numbers], self.processor)
        except MadtpError as error:
            return error
