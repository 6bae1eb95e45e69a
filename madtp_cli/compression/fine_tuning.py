"""Fine-tune a student on a session's data, and keep the state that is best on validation data."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from madtp_cli.compression import calibration, distillation, optimizers
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.optimizers import Schedule
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.evaluation import batching, run, sample_costs, timing
from madtp_cli.evaluation.compute import inputs_of
from madtp_cli.evaluation.quality import agreement
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.models.prunable import Prunable

#: States late in the fine-tune that are compared on validation data, and the samples they are compared on.
CANDIDATES, CANDIDATE_SAMPLES = 2, 500
#: A state is a candidate after this share of the steps.
LATE = 0.8
#: How fast the threshold scale follows the cost of the training batches, whose noise is larger than their drift.
FOLLOWING = 0.05


def announce(session: Session, student: Prunable, teacher: Prunable, steps: int) -> None:
    """Time one batch and report how long the fine-tune will take and how much memory it needs."""
    batch = session.compute.moved(inputs_of(next(iter(batching.batches(session, "val")))))
    samples = len(batch["pixel_values"])
    timed = timing.in_turns({"dense": teacher, "pruned": student}, [batch], session.compute, turns=1)
    # A step is a dense forward pass, a pruned one, and a pruned backward pass, which takes as long as two forward ones.
    per_sample = (timed["dense"][0] + 3 * timed["pruned"][0]) / samples
    # The cost of Muon does not depend on the batch; the dense forward pass shows how fast the device multiplies.
    gflops_per_second = sample_costs.dense_gflops(session, "val", samples).sum() / timed["dense"][0]
    muon = optimizers.muon_gflops(student) / gflops_per_second
    seconds = steps * (session.settings.batch_size * per_sample + muon)
    weights = sum(parameter.nbytes for parameter in student.parameters())
    duration = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"
    session.progress.message(
        f"Fine-tuning for {steps} steps of {session.settings.batch_size} samples takes about {duration} and, "
        # Two models, gradients, momentum and the best state so far, each of the size of the weights.
        f"in addition to activations, {5 * weights / 2**20:,.0f} MiB of memory."
    )


def fine_tune(
    session: Session,
    student: Prunable,
    teacher: Prunable,
    target: Budget,
    slope: float,
    schedule: Schedule,
    samples: int | None,
) -> Calibration | None:
    """Distil the student and leave it in the state that is best on validation data.

    Args:
        session: Data and compute config.
        student: The pruned model.
        teacher: The dense model.
        target: The budget.
        slope: How the cost falls with the threshold scale, see `Calibration.slope`.
        schedule: Steps and learning rates.
        samples: Number of training samples to use, from the first one; all if None.

    Returns:
        The calibration of that state; None if no step was done.
    """
    best: tuple[float, dict[str, torch.Tensor] | None, Calibration] | None = None
    last: Calibration | None = None
    candidates = {math.ceil(schedule.steps * (1 - (1 - LATE) * part / CANDIDATES)) for part in range(CANDIDATES)}
    dense = functools.cache(lambda: run.run_split(session, teacher, "val", CANDIDATE_SAMPLES))
    for step in _steps(session, student, teacher, target, slope, schedule, samples):
        if step not in candidates:
            continue
        scale = student.pruning.threshold_scale if student.pruning else 0.0
        last = calibration.calibrate(session, student, target, CALIBRATION_SAMPLES, scale)
        if len(candidates) == 1:
            continue
        quality = validation_quality(session, student, dense)
        if best is None or quality >= best[0]:  # the last state needs no copy
            best = quality, None if step == schedule.steps else copy.deepcopy(student.state_dict()), last
    if best is not None and best[1] is not None:
        student.load_state_dict(best[1])
    return last if best is None else best[2]


def _steps(
    session: Session,
    student: Prunable,
    teacher: Prunable,
    target: Budget,
    slope: float,
    schedule: Schedule,
    samples: int | None,
) -> Iterator[int]:
    """Yield the number of each step after it is done and reported; the student is then in evaluation mode."""
    batches = batching.training_batches(session, samples)
    session.progress.start("Fine-tuning", schedule.steps)
    for result in distillation.distill(student, teacher, batches, schedule, session.compute):
        gflops = _follow_cost(student, result, target, slope)
        scale = student.pruning.threshold_scale if student.pruning else 0.0
        state = f"loss {result.loss:.3f} · {gflops:.4g} GFLOPs · threshold scale {scale:.3g}"
        session.progress.advance(result.step, state)
        yield result.step
    session.progress.finish()


def _follow_cost(student: Prunable, result: distillation.StepResult, target: Budget, slope: float) -> float:
    """Change the threshold scale slightly so that the cost of a step's samples approaches the budget.

    The cost drifts while the importance scores are learned. This correction needs no extra pass; the calibration on
    validation data comes last.

    Returns:
        The mean GFLOPs of the step's samples.
    """
    if result.trace is None or student.pruning is None:
        return target.gflops
    counts = sample_costs.counts_of(student, result.trace)
    gflops = float(sample_costs.per_sample(student.config, counts).mean()) / 1e9
    factor = (gflops / target.gflops) ** (FOLLOWING / slope)
    run.set_threshold_scale(student, student.pruning.threshold_scale * factor)
    return gflops


def validation_quality(session: Session, student: Prunable, dense: Callable[[], run.Measured]) -> float:
    """Return the quality on validation samples, or, without labels, the agreement with the dense model's answers."""
    measured = run.run_split(session, student, "val", CANDIDATE_SAMPLES)
    if measured.scores:
        return session.task.quality(measured.scores)
    return 100 * float(np.mean(agreement(measured, dense())))
