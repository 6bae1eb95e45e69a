"""Run a model over samples: its answers, scores and token counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from madtp_cli import processes
from madtp_cli.data import Row
from madtp_cli.evaluation import batching, finite, sample_costs
from madtp_cli.evaluation.compute import Batch, ComputeConfig, inputs_of
from madtp_cli.evaluation.session import Session
from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, TokenCounts
from madtp_cli.models.prunable import Prunable
from madtp_cli.tasks import MatchingTask, Task, TaskResult


@dataclass(frozen=True)
class Measured:
    """The result of one pass over samples.

    Attributes:
        result: Answers and scores.
        counts: Token counts of the forward passes.
        generation: The cost of generating, ranking or re-ranking answers, in addition to the forward passes.
    """

    result: TaskResult
    counts: Counts
    generation: sample_costs.GenerationCost

    @property
    def samples(self) -> int:
        """Number of samples; a task may have more answers or scores than samples."""
        return int(next(iter(self.counts.values())).entered.shape[1])

    @property
    def answers(self) -> list[Any]:
        """The answers, as `TaskResult` has them."""
        return self.result.answers

    @property
    def scores(self) -> list[float]:
        """The scores, as `TaskResult` has them; empty if there were no labels."""
        return self.result.scores

    def gflops(self, model: Prunable) -> np.ndarray:
        """Return the GFLOPs of each sample, [samples]."""
        return sample_costs.per_sample(model.config, self.counts) / 1e9


@dataclass(frozen=True)
class Predicted:
    """The predictions of one pass over samples, before they are scored; the fields are as in `Measured`."""

    predictions: list[Any]
    counts: Counts
    generation: sample_costs.GenerationCost


def measure(
    session: Session,
    title: str,
    model: Prunable,
    split: str,
    limit: int | None = None,
    *,
    matching: str = "Matching pairs",
) -> Measured:
    """Run a model over a split of a session and report the progress.

    Args:
        session: The data, the task and the compute config.
        title: Name of the stage.
        model: The model, dense or pruned.
        split, limit: The samples.
        matching: Name of the stage after it, for a task that matches pairs to rank them.
    """
    progress, rows = session.progress, batching.rows(session, split, limit)
    total = len(rows)
    progress.start(title, total)
    batches = batching.batches(session, split, limit)
    predicted = predict(model, batches, session.task, session.compute, lambda done: progress.advance(min(done, total)))
    progress.finish()
    rows = rows if session.labelled else ()
    pairs = pairs_to_match(session.task, model, predicted.predictions)
    if not pairs:
        return score(model, predicted, session.task, session.compute, rows)
    progress.start(matching, pairs)
    measured = score(model, predicted, session.task, session.compute, rows, progress.advance)
    progress.finish()
    return measured


def pairs_to_match(task: Task, model: Prunable, predictions: Sequence[Any]) -> int:
    """Return the number of pairs that are matched to score predictions; 0 for tasks that match none."""
    return task.pairs_to_match(model, predictions) if isinstance(task, MatchingTask) else 0


def run_split(
    session: Session,
    model: Prunable,
    split: str,
    limit: int | None = None,
    tick: Callable[[int], None] = lambda samples: None,
) -> Measured:
    """Run a model over a split of a session; the result has scores if the labels apply to the model."""
    rows = batching.rows(session, split, limit) if session.labelled else ()
    return run(model, batching.batches(session, split, limit), session.task, session.compute, rows, tick)


def run(
    model: Prunable,
    batches: Iterable[Batch],
    task: Task,
    compute: ComputeConfig,
    rows: Sequence[Row] = (),
    tick: Callable[[int], None] = lambda samples: None,
) -> Measured:
    """Run a model once over batches, without gradients, and score the predictions.

    If there are several processes, each runs its own batches, and the result is that of all of them in order.

    Args:
        model: The model, dense or pruned.
        batches: Batches that the task collated.
        task: Makes predictions of the outputs, and scores of the predictions.
        compute: Device and number format.
        rows: The rows of the batches of all processes in the same order. Without rows the result has answers but no
            scores.
        tick: Called after each batch with the number of samples done.
    """
    return score(model, predict(model, batches, task, compute, tick), task, compute, rows)


def predict(
    model: Prunable, batches: Iterable[Batch], task: Task, compute: ComputeConfig, tick: Callable[[int], None]
) -> Predicted:
    """Run a model once over batches, without gradients; the arguments are those of `run`."""
    predictions: list[Any] = []
    counts: list[Counts] = []
    generation = sample_costs.GenerationCost(model.config)
    with compute.inference(model), finite.required(model, compute):
        for batch in map(compute.moved, batches):
            output = model(**inputs_of(batch))
            finite.require(model, output, compute)
            counts.append(sample_costs.counts_of(model, output.trace))
            predictions += task.predict(model, output, batch, generation.recorder(counts[-1]))
            tick(len(predictions) * processes.count())
        predictions, all_counts = processes.gathered(predictions), _joined(counts)
        generation.add_processes()
    return Predicted(predictions, all_counts, generation)


def score(
    model: Prunable,
    predicted: Predicted,
    task: Task,
    compute: ComputeConfig,
    rows: Sequence[Row] = (),
    tick: Callable[[int], None] = lambda pairs: None,
) -> Measured:
    """Score predictions; `tick` is called with the number of pairs that were matched so far."""
    record, done = predicted.generation.recorder(predicted.counts), 0

    def on_text_run(text_run: TextRun) -> None:
        nonlocal done
        record(text_run)
        done += sum(text_run.texts)
        tick(done)

    with compute.inference(model):
        result = task.score(model, predicted.predictions, rows, on_text_run)
    return Measured(result, predicted.counts, predicted.generation)


def counted(model: Prunable, batches: Iterable[Batch], compute: ComputeConfig) -> Counts:
    """Return the token counts of forward passes over the batches."""
    with compute.inference(model), finite.required(model, compute):
        return _joined(
            [sample_costs.counts_of(model, model(**inputs_of(compute.moved(batch))).trace) for batch in batches]
        )


def mean_gflops(model: Prunable, batches: Iterable[Batch], compute: ComputeConfig) -> float:
    """Return the mean GFLOPs per sample at the model's current threshold scale."""
    return float(sample_costs.per_sample(model.config, counted(model, batches, compute)).mean()) / 1e9


def set_threshold_scale(model: Prunable, threshold_scale: float) -> None:
    """Set the threshold scale of a model with a dictionary."""
    if model.pruning is None:
        raise ValueError("the model has no dictionary; call attach first")
    model.attach(replace(model.pruning, threshold_scale=threshold_scale))


def _joined(counts: Sequence[Counts]) -> Counts:
    """Return the token counts of all batches, of all processes."""
    parts = processes.gathered(list(counts))
    return {tower: TokenCounts.joined([part[tower] for part in parts]) for tower in parts[0]}
