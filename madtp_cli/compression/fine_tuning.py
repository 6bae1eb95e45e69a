"""From a loaded checkpoint to a pruned one that meets its budget: attach, calibrate, fine-tune."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from madtp_cli.compression import budget, distillation
from madtp_cli.compression.budget import Budget, Calibration
from madtp_cli.config import CompressSettings
from madtp_cli.errors import BudgetError
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session, agreement
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.flops.counts import CONVENTION
from madtp_cli.models.prunable import Prunable

#: States late in the fine-tune that are compared on validation data, and samples they are compared on.
CANDIDATES, CANDIDATE_SAMPLES = 2, 500
#: Share of the steps after which a state is a candidate.
LATE = 0.8
#: How often a fine-tune of so many steps sees each of its samples: the dense teacher, else half of a
#: step's time, is asked only once about each. A fine-tune of so many epochs sees them all.
PASSES = 3
#: The knob is looked for on this share of the samples first, to within this share of it or of the budget: until it is
#: known where it lies takes most of the passes.
FIRST_SHARE, FIRST_CLOSE = 1 / 8, 0.02
#: And from here: a budget of a fifth asks for knobs of 0.1 to 0.4, one of a half for less than a tenth of that.
FIRST_GUESS = 0.1
#: How fast the knob follows the cost of the training batches, which spreads more than it drifts.
FOLLOWING = 0.05


@dataclass(frozen=True)
class Pruned:
    """A student that meets its budget on the validation samples, beside its dense teacher."""

    teacher: Prunable
    student: Prunable
    target: Budget
    calibration: Calibration

    @property
    def settings(self) -> PruningSettings:
        """How the student prunes."""
        return self.student.pruning or PruningSettings()


def prune(session: Session, settings: CompressSettings) -> Pruned:
    """Attach, calibrate, fine-tune, calibrate again.

    Raises:
        BudgetError: The budget is out of reach, which is found before anything is run, or was missed.
    """
    student = attached(session.model, settings)
    target = feasible_budget(session, student, settings.gflops_budget)
    teacher = dense_copy(session.model)
    few = math.ceil(FIRST_SHARE * len(session.rows("val", CALIBRATION_SAMPLES)))
    first = calibrated(session, student, target, few, rough=FIRST_CLOSE)
    calibration = None
    if settings.steps != 0 and settings.epochs != 0:
        schedule = distillation.Schedule(
            settings.number_of_steps(len(session.rows("train"))),
            settings.rate(student.widths["vision"]),
            settings.dictionary_learning_rate,
        )
        session.announce(student, teacher, schedule.steps)
        wanted = math.ceil(schedule.steps * settings.batch_size / PASSES)
        samples = None if settings.epochs is not None else max(1, wanted)
        calibration = fine_tuned(session, student, teacher, target, first.slope(), schedule, samples)
    final = calibration or calibrated(session, student, target, CALIBRATION_SAMPLES, first.threshold_scale)
    if len(session.rows("val")) > CALIBRATION_SAMPLES:
        final = calibrated(session, student, target, None, final.threshold_scale)
    run.set_threshold_scale(student, final.threshold_scale)
    if not target.is_met(final.gflops):
        raise BudgetError(
            f"{target} was missed: the nearest knob costs {final.gflops:.4g} GFLOPs on the validation samples.\n"
            "Give more validation samples, whose costs average out, or another budget."
        )
    return Pruned(teacher, student, target, final)


def dense_copy(model: Prunable) -> Prunable:
    """The frozen dense model; of a pruned one, what it is at knob 0. Its weights are the model's own, not copies."""
    shared: dict[int, Any] = {id(own): nn.Parameter(own.detach(), requires_grad=False) for own in model.parameters()}
    shared |= {id(own): own for own in model.buffers()}
    teacher = copy.deepcopy(model, shared).eval()
    teacher.config.madtp, teacher.madtp = None, None
    return teacher


def attached(model: Prunable, settings: CompressSettings) -> Prunable:
    """A copy that can prune; a dictionary that is there already stays."""
    student = copy.deepcopy(model)
    if student.pruning is None:
        student.attach(PruningSettings.preset(settings.method, student.widths, student.blocks))
    elif student.pruning.method != settings.method:
        fresh = PruningSettings.preset(settings.method, student.widths, student.blocks)
        sizes = (student.pruning.dictionary_size, student.pruning.dictionary_width)
        student.attach(replace(fresh, dictionary_size=sizes[0], dictionary_width=sizes[1]))
    return student


def feasible_budget(session: Session, student: Prunable, requested: str) -> Budget:
    """The budget in GFLOPs of the calibration samples, after making sure that it can be had."""
    dense = float(sessions.dense_gflops(session, "val").mean())
    target = budget.resolve(requested, dense)
    budget.check_reachable(target, sessions.floor_gflops(session, student, "val"))
    session.progress.message(f"{target}, {CONVENTION}")
    return target


def calibrated(
    session: Session,
    student: Prunable,
    target: Budget,
    samples: int | None,
    start: float = FIRST_GUESS,
    rough: float | None = None,
) -> Calibration:
    """Set the student's knob so that the validation samples cost what the budget says, or `rough`ly so, a share."""
    session.progress.start("Calibrating the knob", 0)

    def cost(threshold_scale: float) -> float:
        run.set_threshold_scale(student, threshold_scale)
        gflops = run.mean_gflops(student, session.batches("val", samples), session.compute)
        session.progress.advance(0, f"knob {threshold_scale:.4g} gives {gflops / target.dense:.4f} of the dense GFLOPs")
        return gflops

    found = budget.calibrate(cost, target, start, *([rough, rough] if rough else []))
    run.set_threshold_scale(student, found.threshold_scale)
    session.progress.finish()
    return found


def fine_tuned(
    session: Session,
    student: Prunable,
    teacher: Prunable,
    target: Budget,
    slope: float,
    schedule: distillation.Schedule,
    samples: int | None,
) -> Calibration | None:
    """Distil the student and leave it in the state that was best on validation data; says how it meets the budget.

    `slope` says how the cost falls with the knob, see `Calibration`.
    """
    steps = schedule.steps
    best: tuple[float, dict[str, torch.Tensor] | None, Calibration] | None = None
    candidates = {math.ceil(steps * (1 - (1 - LATE) * part / CANDIDATES)) for part in range(CANDIDATES)}
    answered = functools.cache(lambda: session.run(teacher, "val", CANDIDATE_SAMPLES))
    calibration = None
    batches = session.training_batches(samples)
    session.progress.start("Fine-tuning against the dense model", steps)
    for step_result in distillation.distill(student, teacher, batches, schedule, session.compute):
        gflops = _follow(student, step_result, target, slope)
        threshold_scale = student.pruning.threshold_scale if student.pruning else 0.0
        state = f"loss {step_result.loss:.3f} · {gflops:.4g} GFLOPs · knob {threshold_scale:.3g}"
        session.progress.advance(step_result.step, state)
        if step_result.step not in candidates:
            continue
        calibration = calibrated(session, student, target, CALIBRATION_SAMPLES, threshold_scale)
        if len(candidates) == 1:
            continue
        quality = _validated(session, student, answered)
        if best is None or quality >= best[0]:
            last = step_result.step == steps
            best = quality, None if last else copy.deepcopy(student.state_dict()), calibration
    session.progress.finish()
    if best is None:
        return calibration
    if best[1] is not None:  # else it is the last one, which the student is in
        student.load_state_dict(best[1])
    return best[2]


def _follow(student: Prunable, step_result: distillation.StepResult, target: Budget, slope: float) -> float:
    """Turn the knob a little towards the budget by what a step's samples cost; returns their mean GFLOPs.

    The cost drifts as scores are learned. This takes no pass of its own; validation data has the last word.
    """
    if step_result.trace is None or student.pruning is None:
        return target.gflops
    counts = sample_costs.counts_of(student, step_result.trace)
    gflops = float(sample_costs.per_sample(student.config, counts).mean()) / 1e9
    run.set_threshold_scale(student, student.pruning.threshold_scale * (gflops / target.gflops) ** (FOLLOWING / slope))
    return gflops


def _validated(session: Session, student: Prunable, answered: Callable[[], run.Measured]) -> float:
    """Quality on validation samples; agreement with what the dense model `answered` where labels do not count."""
    measured = session.run(student, "val", CANDIDATE_SAMPLES)
    if measured.scores:
        return session.task.quality(measured.scores)
    return 100 * float(np.mean(agreement(measured, answered())))
