"""The time of a fine-tuning step, compared with a training step of the dense model on labels only."""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from examples.bench import token_plans
from examples.bench.timings import time_ratio
from examples.bench.variants import SCORING_SCALE
from madtp_cli.compression import distillation
from madtp_cli.compression.distillation import Training
from madtp_cli.compression.optimizers import Schedule, optimizers_of
from madtp_cli.compression.student import dense_teacher
from madtp_cli.evaluation import run
from madtp_cli.evaluation.compute import Batch, ComputeConfig
from madtp_cli.models.prunable import Prunable

#: Learning rates so small that the weights hardly change: only the time of a step matters.
SCHEDULE = Schedule(steps=1000, learning_rate=1e-9, dictionary_learning_rate=1e-9)
DENSE = "dense model, labels only"
#: The two kinds of pruned steps in each turn, in this order.
PRUNED = ("teacher runs", "teacher output cached")
PRUNED_STEPS = len(PRUNED)

#: Seconds of each timed step, by the kind of step.
Seconds = dict[str, list[float]]


def time_steps(
    model: Prunable, batch: Batch, compute: ComputeConfig, plans: Mapping[float, Sequence[np.ndarray]], turns: int
) -> Seconds:
    """Time whole steps, with the optimizers, in turns after a warm-up.

    Each turn has two pruned steps. In the first one the teacher runs on the batch; in the second one its output is
    cached. Every pruned step uses another plan, as with other data.

    Args:
        model: Any architecture with a dictionary; its weights do not change.
        batch: A batch with labels.
        compute: Device and dtype; the weights are in float32.
        plans: By budget, one plan for each pruned step, see `token_plans.plans`.
        turns: Number of timed turns.
    """
    seconds: Seconds = defaultdict(list)

    def time_next(name: str, steps: Iterator[object]) -> None:
        started = time.perf_counter()
        next(steps)
        seconds[name].append(time.perf_counter() - started)

    teacher = dense_teacher(model)
    run.set_threshold_scale(model, SCORING_SCALE)
    student = copy.deepcopy(model).requires_grad_(True)
    dense = copy.deepcopy(model).requires_grad_(True)
    dense.config.madtp, dense.madtp = None, None
    dense_steps = steps_on_labels(dense, batch, compute)
    next_plans = {budget: iter(of_budget) for budget, of_budget in plans.items()}
    for _ in range(turns + 1):
        time_next(DENSE, dense_steps)
        for budget, of_budget in next_plans.items():
            training = Training.begin(student, teacher, SCHEDULE, compute)
            steps = distillation.distill(training, itertools.repeat(batch))
            for kind in PRUNED:
                with token_plans.follow_plan(student, next(of_budget)):
                    time_next(f"budget {budget:g}, {kind}", steps)
    return {name: runs[1:] for name, runs in seconds.items()}


def steps_on_labels(model: Prunable, batch: Batch, compute: ComputeConfig) -> Iterator[None]:
    """Train without a teacher, with the optimizers of fine-tuning; yield after each step."""
    optimizers = optimizers_of(model, SCHEDULE)
    while True:
        model.train()
        with compute.precision():
            loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), distillation.GRADIENT_NORM)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        yield


def table(seconds: Seconds) -> list[str]:
    """Return a Markdown table with the median seconds of each step and its ratio to the dense step."""
    lines = ["| step | seconds | relative to the dense step |", "|---|---|---|"]
    return lines + [
        f"| {name} | {statistics.median(runs):.2f} | {time_ratio(runs, seconds[DENSE]):.2f} |"
        for name, runs in seconds.items()
    ]


def with_labels(batch: Batch) -> Batch:
    """Return the batch with labels for NLVR2, half of them true."""
    return batch | {"labels": torch.arange(len(batch["pixel_values"])) % 2}
