"""Measure how long parts of an evaluation take, to plan the stages of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from madtp_cli import processes
from madtp_cli.data import Row
from madtp_cli.evaluation import batching, run, sample_costs
from madtp_cli.evaluation.compute import Batch
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import PlannedStage
from madtp_cli.tasks import MatchingTask

#: Multiply-adds of a CPU core in a second, in billions, before it is measured.
GFLOPS_PER_SECOND = 20.0
#: Samples on which a task that matches pairs is tried.
MATCHED_SAMPLES = 8


def answer_seconds(session: Session, model: Prunable, split: str, batch: Batch) -> tuple[float, float]:
    """Run the first batch of a split as the evaluation does; return the seconds per sample and per matched pair."""
    task, compute = session.task, session.compute
    rows = batching.rows(session, split, len(batch["pixel_values"])) if session.labelled else ()
    started = time.perf_counter()
    predicted = run.predict(model, [batch], task, compute, lambda samples: None)
    predicted_in = time.perf_counter() - started
    pairs = run.pairs_to_match(task, model, predicted.predictions)
    started = time.perf_counter()
    run.score(model, predicted, task, compute, rows)
    scored_in = time.perf_counter() - started
    return predicted_in / len(batch["pixel_values"]), scored_in / pairs if pairs else 0.0


def guessed_seconds(session: Session, split: str, limit: int | None = None) -> float:
    """Return the seconds of a dense forward pass over samples on a usual CPU, shared by all processes.

    The run itself corrects this guess.
    """
    gflops = sample_costs.dense_gflops(session, split, limit).sum()
    return float(gflops) / (GFLOPS_PER_SECOND * torch.get_num_threads() * processes.count())


def evaluation_stages(
    session: Session, title: str, matching: str, model: Prunable | None = None, *, measured: bool = False
) -> list[PlannedStage]:
    """Return the stages in which a model is evaluated on the split of the settings.

    A task that matches pairs is tried on a few samples: how long a pair takes does not follow from a forward pass.

    Args:
        session: The data and the task.
        title, matching: Names of the stages.
        model: The model; that of the session if None.
        measured: Whether other tasks are tried too, instead of guessing how fast the machine is.
    """
    split = session.settings.split
    rows = batching.rows(session, split)
    mine, pairs = processes.most_of(len(rows)), most_pairs(session, rows)
    if not pairs and not measured:
        return [PlannedStage(title, guessed_seconds(session, split))]
    batch = batching.one_batch(session, split, MATCHED_SAMPLES)
    seconds, pair_seconds = answer_seconds(session, model or session.model, split, batch)
    seconds += preparation_seconds(session, split)
    stages = [
        PlannedStage(title, mine * seconds),
        PlannedStage(matching, pairs * pair_seconds, "pairs"),
    ]
    return stages if pairs else stages[:1]


def preparation_seconds(session: Session, split: str) -> float:
    """Return the seconds in which a sample of a split is decoded and collated, all worker processes together."""
    started = time.perf_counter()
    prepared = batching.full_batches(session, split, session.settings.batch_size, 1)
    seconds = time.perf_counter() - started
    return seconds / len(prepared[0]["pixel_values"]) / max(1, session.settings.workers or 1)


def most_pairs(session: Session, rows: Sequence[Row]) -> int:
    """Return about how many pairs are matched to score some rows; 0 for tasks that match none."""
    return session.task.most_pairs(rows) if isinstance(session.task, MatchingTask) else 0
