"""The rows and batches of a session's splits."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from madtp_cli import processes
from madtp_cli.data import Row, sharing
from madtp_cli.data import batches as data_batches
from madtp_cli.data.caption_sampling import SampledCaptions
from madtp_cli.data.similar_texts import grouped_order
from madtp_cli.errors import DataError
from madtp_cli.evaluation.compute import Batch, inputs_of
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.tasks import GroupingTask

#: Memory for prepared batches that are kept for the next pass, in bytes, of all splits together.
MOST_PREPARED_BYTES = 2**30


def rows(session: Session, split: str, limit: int | None = None) -> Sequence[Row]:
    """Return the rows of a split: at most `limit` of those that the limit of the settings leaves.

    They are chosen by `Dataset.choose`, so they represent all rows.
    """
    chosen, choose = session.data.split(split), session.data.choose
    for number in (session.settings.limit, limit):
        chosen = chosen if number is None else sharing.some(chosen, number, choose)
    return chosen


def batches(session: Session, split: str, limit: int | None = None) -> Iterable[Batch]:
    """Return the batches of a split in order. They stay in memory for the next pass if they fit.

    If there are several processes, these are the batches of this process's part of the rows.

    Raises:
        DataError: The split has no rows.
    """
    chosen = _some_rows(session, split, limit)
    key, mine = f"{split}/{len(chosen)}", sharing.part(chosen)
    if key in session.prepared_batches:
        return session.prepared_batches[key]
    return _keep_if_they_fit(session, key, len(mine), _collated(session, mine))


def _some_rows(session: Session, split: str, limit: int | None = None) -> Sequence[Row]:
    """Return the rows of a split, as `rows` does.

    Raises:
        DataError: The split has no rows.
    """
    chosen = rows(session, split, limit)
    if not len(chosen):
        raise DataError(f"The {split} split of {session.data.source} is empty.\nGive data with samples in it.")
    return chosen


def require_training_batches(session: Session, samples: int | None = None) -> None:
    """Check that there is something to train on.

    Args:
        session: The data and the batch size.
        samples: Number of rows to use; all if None.

    Raises:
        DataError: The train split has no rows, or fewer than there are processes.
        UsageError: A batch has fewer samples than there are processes.
    """
    sharing.steps(_some_rows(session, "train", samples), session.settings.batch_size)


def training_batches(
    session: Session, samples: int | None = None, done: int = 0, embeddings: Tensor | None = None
) -> Iterator[Batch]:
    """Yield shuffled batches of training rows on the device, epoch after epoch without end, after the first `done`.

    If there are several processes, each gets its part of every batch.

    Each row has one of its captions. With `samples` rows it is the same caption in each epoch, so that the
    teacher cache holds every target after one epoch. Without `samples` each epoch has another caption.

    Args:
        session: Data, batch size and seed.
        samples: Number of rows to use; all if None.
        done: Batches to skip.
        embeddings: Of the rows' texts, see `text_embeddings`. If they are given, rows with similar texts share a batch.

    Raises:
        DataError, UsageError: There is nothing to train on, see `require_training_batches`.
    """
    chosen, seed = _some_rows(session, "train", samples), session.settings.seed
    size = session.settings.batch_size
    first, skipped = divmod(done, sharing.steps(chosen, size))
    for epoch in itertools.count(first):
        captioned = SampledCaptions(chosen, seed, epoch if samples is None else 0)
        start, key = skipped * size if epoch == first else 0, f"{seed}/{epoch}"
        order = None if embeddings is None else grouped_order(captioned, embeddings, key)
        for batch in _collated(session, captioned, key, start, order=order, shared=True):
            yield session.compute.moved(batch)


@torch.no_grad()
def text_embeddings(session: Session, teacher: Prunable, samples: int | None = None) -> Tensor | None:
    """Return the dense model's embeddings of the texts of the training rows, [rows, width]; the same in all processes.

    These are the texts of the first epoch.

    Args:
        session: The data and the task.
        teacher: The dense model.
        samples: Number of rows to use; all if None.

    Returns:
        None if the task does not group samples by their texts.

    Raises:
        DataError: The train split has no rows.
    """
    task, chosen = session.task, _some_rows(session, "train", samples)
    if not isinstance(task, GroupingTask):
        return None
    captioned, advance = SampledCaptions(chosen, session.settings.seed, 0), session.progress.advance
    session.progress.start("Embedding the texts", len(chosen))
    with session.compute.precision():
        found = processes.from_main(lambda: task.text_embeddings(teacher, captioned, session.processor, advance))
    session.progress.finish()
    return found


def full_batches(session: Session, split: str, size: int, number: int) -> list[Batch]:
    """Return at most `number` full batches of rows of a split that this process can read, without labels.

    If there are fewer rows than `size`, the result is one batch of all rows.

    Raises:
        DataError: This process can read no row of the split.
    """
    chosen = session.data.choose(readable_rows(session, split), size * number)
    made = data_batches.batches(chosen, session.task, session.processor, batch_size=size, workers=0)
    return [inputs_of(batch) for batch in itertools.islice(made, max(1, len(chosen) // size))]


def one_batch(session: Session, split: str, limit: int | None = None) -> Batch:
    """Return one batch of a split that this process can read, with labels and all inputs of the task.

    Args:
        session: The data and the batch size.
        split: The split.
        limit: Largest number of samples, if it is below the batch size.

    Raises:
        DataError: This process can read no row of the split.
    """
    size = min(limit or session.settings.batch_size, session.settings.batch_size)
    return next(_collated(session, session.data.choose(readable_rows(session, split), size)))


def readable_rows(session: Session, split: str) -> Sequence[Row]:
    """Return the rows of a split that this process can read, see `sharing.readable`; `batches` gives its own part.

    Raises:
        DataError: There is none.
    """
    return sharing.readable(_some_rows(session, split), split)


def _collated(
    session: Session,
    chosen: Sequence[Row],
    seed: str | None = None,
    start: int = 0,
    *,
    order: Sequence[int] | None = None,
    shared: bool = False,
) -> Iterator[Batch]:
    settings = session.settings
    made = data_batches.batches(
        chosen,
        session.task,
        session.processor,
        batch_size=settings.batch_size,
        seed=seed,
        order=order,
        workers=settings.workers,
        start=start,
        shared=shared,
    )
    for batch in made:
        yield batch if session.labelled else {name: value for name, value in batch.items() if name != "labels"}


def _keep_if_they_fit(session: Session, key: str, samples: int, made: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches; keep them in the session if all of them fit in memory."""
    kept: list[Batch] | None = []
    used = sum(_bytes(batch) for others in session.prepared_batches.values() for batch in others)
    for batch in made:
        if kept is not None and _bytes(batch) / len(batch["pixel_values"]) * samples > MOST_PREPARED_BYTES - used:
            kept = None
        if kept is not None:
            kept.append(batch)
        yield batch
    if kept is not None:
        session.prepared_batches[key] = kept


def _bytes(batch: Batch) -> int:
    return sum(value.nbytes for value in batch.values())
