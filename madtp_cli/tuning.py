"""From a loaded checkpoint to a pruned one that meets its budget: attach, calibrate, fine-tune."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from madtp_cli import budget, distill, flops, measure, workbench
from madtp_cli.budget import Budget, Calibration
from madtp_cli.config import CompressSettings
from madtp_cli.errors import BudgetError
from madtp_cli.models.encoder import PruningSettings
from madtp_cli.models.prunable import Prunable
from madtp_cli.workbench import CALIBRATION_SAMPLES, Workbench, agreement

#: States late in the fine-tune that are compared on validation data, and samples they are compared on.
CANDIDATES, CANDIDATE_SAMPLES = 2, 500
#: Share of the steps after which a state is a candidate.
LATE = 0.8
#: How often a fine-tune of so many steps sees each of its samples: the dense teacher, else half of a
#: step's time, is asked only once about each. A fine-tune of so many epochs sees them all.
PASSES = 3
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


def prune(bench: Workbench, settings: CompressSettings) -> Pruned:
    """Attach, calibrate, fine-tune, calibrate again.

    Raises:
        BudgetError: The budget is out of reach, which is found before anything is run, or was missed.
    """
    student = attached(bench.model, settings)
    target = feasible_budget(bench, student, settings.gflops_budget)
    teacher = dense_copy(bench.model)
    calibration = calibrated(bench, student, target, CALIBRATION_SAMPLES)
    if settings.steps != 0 and settings.epochs != 0:
        schedule = distill.Schedule(
            settings.number_of_steps(len(bench.rows("train"))),
            settings.rate(student.widths["vision"]),
            settings.dictionary_learning_rate,
        )
        bench.announce(student, teacher, schedule.steps)
        wanted = math.ceil(schedule.steps * settings.batch_size / PASSES)
        samples = None if settings.epochs is not None else max(1, wanted)
        calibration = fine_tuned(bench, student, teacher, target, calibration, schedule, samples)
    final = calibrated(bench, student, target, None, calibration.knob)
    if not target.is_met(final.gflops):
        raise BudgetError(
            f"{target} was missed: the nearest knob costs {final.gflops:.4g} GFLOPs on the validation samples.\n"
            "Give more validation samples, whose costs average out, or another budget."
        )
    return Pruned(teacher, student, target, final)


def dense_copy(model: Prunable) -> Prunable:
    """The frozen dense model; of a pruned one, what it is at knob 0."""
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
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


def feasible_budget(bench: Workbench, student: Prunable, requested: str) -> Budget:
    """The budget in GFLOPs of the calibration samples, after making sure that it can be had."""
    dense = float(workbench.dense_gflops(bench, "val").mean())
    target = budget.resolve(requested, dense)
    budget.check_reachable(target, workbench.floor_gflops(bench, student, "val"))
    bench.listener.say(f"{target}, {flops.CONVENTION}")
    return target


def calibrated(
    bench: Workbench, student: Prunable, target: Budget, samples: int | None, start: float = 1.0
) -> Calibration:
    """Set the student's knob so that the validation samples cost what the budget says."""
    bench.listener.stage("Calibrating the knob", 0)

    def cost(knob: float) -> float:
        measure.set_knob(student, knob)
        gflops = measure.mean_gflops(student, bench.batches("val", samples), bench.place)
        bench.listener.advance(0, f"knob {knob:.4g} gives {gflops / target.dense:.4f} of the dense GFLOPs")
        return gflops

    found = budget.calibrate(cost, target, start)
    measure.set_knob(student, found.knob)
    bench.listener.done()
    return found


def fine_tuned(
    bench: Workbench,
    student: Prunable,
    teacher: Prunable,
    target: Budget,
    calibration: Calibration,
    schedule: distill.Schedule,
    samples: int | None,
) -> Calibration:
    """Distil the student and leave it in the state that was best on validation data."""
    steps = schedule.steps
    best: tuple[float, dict[str, torch.Tensor], Calibration] | None = None
    candidates = {math.ceil(steps * (1 - (1 - LATE) * part / CANDIDATES)) for part in range(CANDIDATES)}
    slope = calibration.slope()
    batches = bench.training_batches(samples)
    bench.listener.stage("Fine-tuning against the dense model", steps)
    with bench.place.precision():
        for progress in distill.distill(student, teacher, batches, schedule):
            gflops = _follow(student, progress, target, slope)
            knob = student.pruning.knob if student.pruning else 0.0
            state = f"loss {progress.loss:.3f} · {gflops:.4g} GFLOPs · knob {knob:.3g}"
            bench.listener.advance(progress.step, state)
            if progress.step not in candidates:
                continue
            calibration = calibrated(bench, student, target, CALIBRATION_SAMPLES, knob)
            quality = _validated(bench, student, teacher)
            if best is None or quality >= best[0]:
                best = quality, copy.deepcopy(student.state_dict()), calibration
    bench.listener.done()
    if best is not None:
        student.load_state_dict(best[1])
        calibration = best[2]
    return calibration


def _follow(student: Prunable, progress: distill.Progress, target: Budget, slope: float) -> float:
    """Turn the knob a little towards the budget by what a step's samples cost; returns their mean GFLOPs.

    The cost drifts as scores are learned. This takes no pass of its own; validation data has the last word.
    """
    if progress.trace is None or student.pruning is None:
        return target.gflops
    counts = flops.counts_of(student, progress.trace)
    gflops = float(flops.per_sample(student.config, counts).mean()) / 1e9
    measure.set_knob(student, student.pruning.knob * (gflops / target.gflops) ** (FOLLOWING / slope))
    return gflops


def _validated(bench: Workbench, student: Prunable, teacher: Prunable) -> float:
    """Quality on validation samples; agreement with the dense model where labels do not count."""
    measured = bench.run(student, "val", CANDIDATE_SAMPLES)
    if measured.scores:
        return bench.task.quality(measured.scores)
    return 100 * float(np.mean(agreement(measured, bench.run(teacher, "val", CANDIDATE_SAMPLES))))
