"""Fine-tune a student on a session's data, and keep the state that is best on validation data."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from madtp_cli import processes
from madtp_cli.compression import calibration, distillation
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.optimizers import Schedule
from madtp_cli.compression.remaining_time import RemainingTime
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.evaluation import batching, run, sample_costs
from madtp_cli.evaluation.quality import agreement
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.schema import TrainingPoint

#: States late in the fine-tune that are compared on validation data, and the samples they are compared on.
CANDIDATES, CANDIDATE_SAMPLES = 2, 500
#: A state is a candidate after this share of the steps.
LATE = 0.8
#: How fast the threshold scale follows the cost of the training batches, whose noise is larger than their drift.
FOLLOWING = 0.05


def validations(session: Session, steps: int) -> dict[int, int]:
    """Return the steps after which a state is a candidate, and the number of samples that candidates are compared on.

    A single candidate is only calibrated.
    """
    numbers = {math.ceil(steps * (1 - (1 - LATE) * part / CANDIDATES)) for part in range(CANDIDATES)}
    samples = len(batching.rows(session, "val", CANDIDATE_SAMPLES)) if len(numbers) > 1 else 0
    return dict.fromkeys(sorted(numbers), samples)


def fine_tune(
    session: Session,
    student: Prunable,
    teacher: Prunable,
    target: Budget,
    slope: float,
    schedule: Schedule,
    samples: int | None,
    remaining: RemainingTime | None = None,
) -> Calibration | None:
    """Distil the student, leave it in the best state on validation data, and return the calibration of that state.

    Args:
        session, student, teacher: Data and compute config; the pruned and the dense model.
        target, slope: The budget, and how the cost falls with the threshold scale, see `Calibration.slope`.
        schedule, samples: Steps and learning rates, and the number of training samples to use; all if None.
        remaining: The time that the fine-tune needs, to report it; None to leave this to the reporter.
    """
    best: tuple[float, dict[str, torch.Tensor] | None, Calibration] | None = None
    last: Calibration | None = None
    candidates = validations(session, schedule.steps)
    dense = functools.cache(lambda: run.run_split(session, teacher, "val", CANDIDATE_SAMPLES))
    for step in _steps(session, student, teacher, target, slope, schedule, samples, remaining):
        if step not in candidates:
            continue
        started = time.monotonic()
        last = _calibrate(session, student, target, step)
        if len(candidates) == 1:
            continue
        session.progress.start(f"Validating after step {step}", 0)
        quality = validation_quality(session, student, dense)
        session.progress.finish()
        if best is None or quality >= best[0]:  # the last state needs no copy
            best = quality, None if step == schedule.steps else copy.deepcopy(student.state_dict()), last
        if remaining:
            remaining.add_pause(time.monotonic() - started)
    if best is not None and best[1] is not None:
        student.load_state_dict(best[1])
    return last if best is None else best[2]


def _calibrate(session: Session, student: Prunable, target: Budget, step: int) -> Calibration:
    """Calibrate the threshold scale of a state, from its current value."""
    scale = student.pruning.threshold_scale if student.pruning else 0.0
    title = f"Calibrating after step {step}"
    return calibration.calibrate(session, student, target, CALIBRATION_SAMPLES, scale, title=title)


def _steps(
    session: Session,
    student: Prunable,
    teacher: Prunable,
    target: Budget,
    slope: float,
    schedule: Schedule,
    samples: int | None,
    remaining: RemainingTime | None,
) -> Iterator[int]:
    """Yield the number of each step after it is done and reported; the student is then in evaluation mode."""
    batches = batching.training_batches(session, samples)
    session.progress.start("Fine-tuning", schedule.steps)
    started = time.monotonic()
    for result in distillation.distill(student, teacher, batches, schedule, session.compute, session.teacher_targets):
        gflops = _follow_cost(student, result, target, slope)
        scale = student.pruning.threshold_scale if student.pruning else 0.0
        if remaining:
            remaining.add_step(time.monotonic() - started, result.teacher_seconds)
            session.progress.expect(remaining.left())
        state = f"loss {result.loss:.3f} · {gflops:.4g} GFLOPs · threshold scale {scale:.3g}"
        session.progress.figures(loss=result.loss, gflops=gflops, threshold_scale=scale)
        session.progress.advance(result.step, state)
        session.training.append(TrainingPoint(step=result.step, loss=result.loss, gflops=gflops, threshold_scale=scale))
        yield result.step
        started = time.monotonic()  # without the validation of the state
    session.progress.finish()


def _follow_cost(student: Prunable, result: distillation.StepResult, target: Budget, slope: float) -> float:
    """Change the threshold scale slightly so that the cost of a step's samples approaches the budget.

    The cost drifts while the importance scores are learned. This correction needs no extra pass; the calibration on
    validation data comes last.

    Returns:
        The mean GFLOPs of the step's samples, of all processes.
    """
    if result.trace is None or student.pruning is None:
        return target.gflops
    counts = sample_costs.counts_of(student, result.trace)
    flops = processes.gathered(list(sample_costs.per_sample(student.config, counts)))
    gflops = float(np.mean(flops)) / 1e9
    factor = (gflops / target.gflops) ** (FOLLOWING / slope)
    run.set_threshold_scale(student, student.pruning.threshold_scale * factor)
    return gflops


def validation_quality(session: Session, student: Prunable, dense: Callable[[], run.Measured]) -> float:
    """Return the quality on validation samples, or, without labels, the agreement with the dense model's answers."""
    measured = run.run_split(session, student, "val", CANDIDATE_SAMPLES)
    if measured.scores:
        return session.task.quality(measured.scores)
    return 100 * float(np.mean(agreement(measured, dense())))
