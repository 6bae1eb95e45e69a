"""Fine-tune a student on a session's data, and keep the state that is best on validation data."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from madtp_cli import processes
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.compression import calibration, distillation, stage_titles, training_state
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.distillation import Training
from madtp_cli.compression.elastic import FOLLOWING, ScaleSampler
from madtp_cli.compression.interruption import StopSignals
from madtp_cli.compression.optimizers import Schedule
from madtp_cli.compression.remaining_time import RemainingTime
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.errors import OutputError
from madtp_cli.evaluation import batching, run, sample_costs
from madtp_cli.evaluation.quality import agreement, compared
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.run_parts import AllocationTrial, TrainingPoint
from madtp_cli.tasks import DenseComparingTask

#: States late in the fine-tune that are compared on validation data, and the samples they are compared on.
CANDIDATES, CANDIDATE_SAMPLES = 2, 500
#: A state is a candidate after this share of the steps.
LATE = 0.8


def validations(session: Session, steps: int) -> dict[int, int]:
    """Return the steps after which a state is a candidate, and the number of samples that candidates are compared on.

    A single candidate is only calibrated.
    """
    numbers = {math.ceil(steps * (1 - (1 - LATE) * part / CANDIDATES)) for part in range(CANDIDATES)}
    samples = len(batching.rows(session, "val", CANDIDATE_SAMPLES)) if len(numbers) > 1 else 0
    return dict.fromkeys(sorted(numbers), samples)


@dataclass(kw_only=True)
class FineTune:
    """Distil the student, and leave it in the best state on validation data.

    Attributes:
        session, student, teacher: Data and compute config; the pruned and the dense model.
        target: The budget.
        first: The calibration of the student before its first step; it tells how the cost falls with the scale.
        schedule, samples: Steps and learning rates, and the number of training samples to use; all if None.
        accumulate: Forward and backward passes per step.
        state: Where the training is saved, so that a run can continue; None to save nothing.
        remaining: The time that the fine-tune needs, to report it; None to leave this to the reporter.
        best: Quality, weights and calibration of the best state so far. The weights of the last state are None, because
            they need no copy.
        last: The calibration of the latest state that was calibrated.
        sampler: Draws the threshold scale of each step for a range of budgets; None for one budget.
    """

    session: Session
    student: Prunable
    teacher: Prunable
    target: Budget
    first: Calibration
    schedule: Schedule
    samples: int | None = None
    accumulate: int = 1
    state: StateFolder | None = None
    remaining: RemainingTime | None = None
    best: tuple[float, dict[str, torch.Tensor] | None, Calibration] | None = None
    last: Calibration | None = None
    sampler: ScaleSampler | None = None

    def train(self) -> Calibration | None:
        """Fine-tune from the first step, or from the saved state, and return the calibration of the best state."""
        training = Training.begin(
            self.student, self.teacher, self.schedule, self.session.compute, self.session.teacher_targets
        )
        training.accumulate = self.accumulate
        saved = self.state.load(training_state.TRAINING) if self.state else None
        if self.state and saved is not None:
            self._restore(self.state, training, saved)
        candidates = validations(self.session, self.schedule.steps)
        dense = functools.cache(lambda: run.run_split(self.session, self.teacher, "val", CANDIDATE_SAMPLES))
        with StopSignals(self._announce_stop) as signals:
            done = [training.step] if saved is not None else []
            for step in itertools.chain(done, self._steps(training, candidates, signals)):
                if step in candidates:
                    with signals.suspended():
                        self._evaluate(step, dense if len(candidates) > 1 else None)
        if self.best is not None and self.best[1] is not None:
            self.student.load_state_dict(self.best[1])
        return self.last if self.best is None else self.best[2]

    def _evaluate(self, step: int, dense: Callable[[], run.Measured] | None) -> None:
        """Calibrate the state of a step, and compare it with the best one so far if there are several candidates.

        The next step has the calibrated threshold scale, or, for a range of budgets, the one that was drawn for it.
        """
        drawn = training_state.threshold_scale(self.student)
        self.last = _calibrate(self.session, self.student, self.target, step)
        if dense is not None:
            samples = len(batching.rows(self.session, "val", CANDIDATE_SAMPLES))
            self.session.progress.start(stage_titles.validation_after(step), samples)
            quality = validation_quality(self.session, self.student, dense)
            self.session.progress.finish()
            if self.best is None or quality >= self.best[0]:
                weights = None if step == self.schedule.steps else copy.deepcopy(self.student.state_dict())
                self.best = quality, weights, self.last
        if self.sampler is not None:
            run.set_threshold_scale(self.student, drawn)

    def _steps(self, training: Training, candidates: Collection[int], signals: StopSignals) -> Iterator[int]:
        """Yield the number of each step after it is done, reported and saved where that is due.

        The student is then in evaluation mode.
        """
        progress = self.session.progress
        embeddings = batching.text_embeddings(self.session, self.teacher, self.samples)
        batches = batching.training_batches(self.session, self.samples, training.step, embeddings)
        progress.start(stage_titles.FINE_TUNING, self.schedule.steps)
        started = time.monotonic()
        for result in distillation.distill(training, batches):
            gflops = _follow_cost(self.student, result, self.target, self.first.slope(), self.sampler)
            if self.remaining:
                self.remaining.add_step(time.monotonic() - started, result.teacher_seconds)
                progress.expect(self.remaining.left())
            scale = training_state.threshold_scale(self.student)
            figures = {"loss": result.loss, "gflops": gflops, "threshold_scale": scale}
            figures["learning_rate"] = result.learning_rate
            progress.figures(**figures)
            self.session.training.append(TrainingPoint(step=result.step, **figures))
            progress.advance(result.step, f"loss {result.loss:.3f} · {gflops:.4g} GFLOPs · threshold scale {scale:.3g}")
            stop = signals.agreed()
            due = self.state and self.state.save_every and result.step % self.state.save_every == 0
            if due or stop or result.step in candidates:
                self._save(training)
                stop = stop or signals.agreed()  # one that came while the state was written
            if stop:
                signals.deliver(stop)
            yield result.step
            started = time.monotonic()  # without the validation of the state
        progress.finish()

    def _save(self, training: Training) -> None:
        """Save the training. If the disk is full, the run goes on: it could still end."""
        if self.state is None:
            return
        best = None if self.best is None else (*self.best[:2], asdict(self.best[2]))
        points = [point.model_dump() for point in self.session.training]
        sampler = None if self.sampler is None else self.sampler.state()
        trials = [trial.model_dump() for trial in self.session.allocation]
        more = {"points": points, "trials": trials, "first": self.first, "last": self.last, "best": best}
        try:
            training_state.save_training(self.state, training, self.student, {**more, "sampler": sampler})
        except OutputError as error:
            self.session.progress.message(f"The state after step {training.step} was not saved. {error}")

    def _restore(self, state: StateFolder, training: Training, saved: dict[str, Any]) -> None:
        training_state.restore_training(state, saved, training, self.student)
        self.session.training[:] = [TrainingPoint(**point) for point in saved["points"]]
        self.session.allocation[:] = [AllocationTrial(**trial) for trial in saved["trials"]]
        if self.sampler is not None:
            self.sampler.restore(saved["sampler"])
        self.last = saved["last"] and training_state.calibration(saved["last"])
        if saved["best"] is not None:
            quality, weights, found = saved["best"]
            self.best = quality, weights, training_state.calibration(found)

    def _announce_stop(self) -> None:
        what = "saves its state and stops" if self.state else "stops"
        self.session.progress.message(f"The run {what} after this step. A second signal stops it at once.")


def _calibrate(session: Session, student: Prunable, target: Budget, step: int) -> Calibration:
    """Calibrate the threshold scale of a state, from its current value."""
    scale = training_state.threshold_scale(student)
    title = stage_titles.calibration_after(step)
    return calibration.calibrate(session, student, target, CALIBRATION_SAMPLES, scale, title=title)


def _follow_cost(
    student: Prunable, result: distillation.StepResult, target: Budget, slope: float, sampler: ScaleSampler | None
) -> float:
    """Change the threshold scale slightly so that the cost of a step's samples approaches the budget.

    The cost drifts while the importance scores are learned. This correction needs no extra pass; the calibration on
    validation data comes last.

    Returns:
        The mean GFLOPs of the step's samples, of all processes.
    """
    if not result.traces or student.pruning is None:
        return target.gflops
    counts = [sample_costs.counts_of(student, trace) for trace in result.traces]
    flops = processes.gathered([one for part in counts for one in sample_costs.per_sample(student.config, part)])
    gflops = float(np.mean(flops)) / 1e9
    if sampler is not None:
        sampler.follow(gflops / target.dense)
        run.set_threshold_scale(student, sampler.draw())
        return gflops
    factor = (gflops / target.gflops) ** (FOLLOWING / slope)
    run.set_threshold_scale(student, student.pruning.threshold_scale * factor)
    return gflops


def validation_quality(session: Session, student: Prunable, dense: Callable[[], run.Measured]) -> float:
    """Return the quality on validation samples, or, without labels, the agreement with the dense model's answers."""
    measured = run.run_split(session, student, "val", CANDIDATE_SAMPLES, session.progress.advance)
    if isinstance(session.task, DenseComparingTask):
        measured = compared(session, dense(), measured)
    if measured.scores:
        return session.task.quality(measured.scores)
    return 100 * float(np.mean(agreement(measured, dense())))
