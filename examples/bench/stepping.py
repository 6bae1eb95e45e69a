"""What a step of the fine-tune takes, beside a step of training the dense model on its labels alone."""

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

from examples.bench import counts
from examples.bench.page import times_faster
from examples.bench.running import SCORED
from madtp_cli.compression import distillation, optimizers
from madtp_cli.compression.student import dense_teacher
from madtp_cli.evaluation import run
from madtp_cli.evaluation.run import Batch, ComputeConfig
from madtp_cli.models.prunable import Prunable

#: Rates that change next to nothing: what is timed is the step.
SCHEDULE = optimizers.Schedule(steps=1000, learning_rate=1e-9, dictionary_learning_rate=1e-9)
DENSE = "dense, labels alone"
#: Steps of each turn and budget, in their order.
PRUNED = ("the dense model asked", "its answer kept")
PRUNED_STEPS = len(PRUNED)

#: Seconds of each run, by what was run.
Seconds = dict[str, list[float]]


def seconds(
    model: Prunable, batch: Batch, compute: ComputeConfig, lefts: Mapping[float, Sequence[np.ndarray]], turns: int
) -> Seconds:
    """Of whole steps, optimizers included, in turns after a warm-up.

    A pruned step is taken twice: the first time the dense model is asked about the batch, then its answer is kept.
    Each of them imposes other counts, as other data would.

    Args:
        model: Of any attached architecture; its weights stay.
        batch: With labels.
        place: Where, and in which number format; weights are in float32.
        lefts: By budget, prunable tokens each image has left after each block, for each pruned step.
        turns: How many count.
    """
    taken: Seconds = defaultdict(list)

    def timed(name: str, steps: Iterator[object]) -> None:
        started = time.perf_counter()
        next(steps)
        taken[name].append(time.perf_counter() - started)

    teacher = dense_teacher(model)
    run.set_threshold_scale(model, SCORED)
    student = copy.deepcopy(model).requires_grad_(True)
    dense = copy.deepcopy(model).requires_grad_(True)
    dense.config.madtp, dense.madtp = None, None
    alone = labels_alone(dense, batch, compute)
    coming = {budget: iter(plans) for budget, plans in lefts.items()}
    for _ in range(turns + 1):
        timed(DENSE, alone)
        for budget, plans in coming.items():
            steps = distillation.distill(student, teacher, itertools.repeat(batch), SCHEDULE, compute)
            for when in PRUNED:
                with counts.imposed(student, next(plans)):
                    timed(f"budget {budget:g}, {when}", steps)
    return {name: runs[1:] for name, runs in taken.items()}


def labels_alone(model: Prunable, batch: Batch, compute: ComputeConfig) -> Iterator[None]:
    """Training steps without a teacher, by the same optimizers."""
    both = optimizers.optimizers_of(model, SCHEDULE)
    while True:
        model.train()
        with compute.precision():
            loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), distillation.GRADIENT_NORM)
        for optimizer in both:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        yield


def table(taken: Seconds) -> list[str]:
    """Markdown: median seconds of each step, and its share of the dense one's."""
    medians = {name: statistics.median(runs) for name, runs in taken.items()}
    lines = ["| step | s | of the dense step |", "|---|---|---|"]
    return lines + [
        f"| {name} | {one:.2f} | {times_faster(taken[name], taken[DENSE]):.2f} |" for name, one in medians.items()
    ]


def labelled(batch: Batch) -> Batch:
    """The batch with labels of NLVR2, half of them true."""
    return batch | {"labels": torch.arange(len(batch["pixel_values"])) % 2}
