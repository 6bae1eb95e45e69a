"""Compress a loaded model: attach pruning, calibrate, fine-tune, calibrate again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from madtp_cli.checkpoint import number_format
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.compression import allocation, calibration, elastic, fine_tuning, stage_titles, training_state
from madtp_cli.compression.announcement import Compression, TrainingPlan, announce
from madtp_cli.compression.budget import Budget, feasible_budget, upper_end
from madtp_cli.compression.elastic import ScaleSampler
from madtp_cli.compression.fine_tuning import FineTune
from madtp_cli.compression.optimizers import Schedule, default_rate
from madtp_cli.compression.output_loss import output_loss
from madtp_cli.compression.remaining_time import RemainingTime
from madtp_cli.compression.student import dense_teacher, prunable_student
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.config import CompressSettings
from madtp_cli.errors import BudgetError
from madtp_cli.evaluation import batching, run
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.run_parts import AllocationTrial, TrainingPoint

#: Without a number of epochs, the fine-tune uses as many different samples as it can see this often. The teacher
#: cache then saves the dense forward pass, half of the time of a step, on all but the first time.
PASSES = 3
#: The first search uses this share of the calibration samples and stops at this distance from the budget: most passes
#: are spent until the order of magnitude of the threshold scale is known.
FIRST_SHARE, FIRST_CLOSE = 1 / 8, 0.02


@dataclass(frozen=True)
class CompressedModel:
    """A student that meets its budget on the validation samples, and its dense teacher.

    The student's weights are rounded to `saved_in`, the number format of the file.
    """

    teacher: Prunable
    student: Prunable
    target: Budget
    calibration: Calibration
    saved_in: torch.dtype

    @property
    def settings(self) -> PruningSettings:
        """The student's pruning settings."""
        return self.student.pruning or PruningSettings()


def compress_model(
    session: Session, settings: CompressSettings, state: StateFolder | None = None, *, strict: bool = True
) -> CompressedModel:
    """Bring the model of a session to the budget of the settings.

    Args:
        session: The model, its data and the compute config.
        settings: The budget and the fine-tune.
        state: Where the fine-tune is saved; a state that is there already is continued.
        strict: Whether it is an error if no threshold scale costs what the budget allows within 1 %.

    Raises:
        BudgetError: The budget cannot be reached (found before the first forward pass), or it was missed.
        UsageError: A weight is too large for the number format of the file.
    """
    saved_in = number_format.FORMATS.get(settings.save_dtype, session.stored)
    number_format.require_range(session.model, saved_in)
    student = prunable_student(session.model, settings.method)
    target = feasible_budget(session, student, settings.gflops_budget)
    teacher = dense_teacher(session.model)
    first, final = _trained(session, student, teacher, target, settings, state)
    rounded = number_format.round_weights(student, saved_in)
    many = len(batching.rows(session, "val")) > CALIBRATION_SAMPLES
    if final is None or (rounded and not many):
        start = (final or first).threshold_scale
        final = calibration.calibrate(session, student, target, CALIBRATION_SAMPLES, start)
    if many:
        title = stage_titles.full_calibration(len(batching.rows(session, "val")))
        final = calibration.calibrate(session, student, target, None, final.threshold_scale, title=title)
    run.set_threshold_scale(student, final.threshold_scale)
    if strict and not target.is_met(final.gflops):
        raise BudgetError(
            f"{target} was missed: the nearest threshold scale costs {final.gflops:.4g} GFLOPs on the validation "
            "samples.\nGive more validation samples, so that the mean cost changes in smaller steps, or another budget."
        )
    _add_curve(session, student, target, settings, final)
    return CompressedModel(teacher, student, target, final, saved_in)


def training_samples(settings: CompressSettings, steps: int) -> int | None:
    """Return how many different training samples a fine-tune of this many steps uses; None for all."""
    if settings.epochs is not None:
        return None
    return max(settings.batch_size, math.ceil(steps * settings.batch_size / PASSES))


def _trained(
    session: Session,
    student: Prunable,
    teacher: Prunable,
    target: Budget,
    settings: CompressSettings,
    state: StateFolder | None,
) -> tuple[Calibration, Calibration | None]:
    """Calibrate roughly and fine-tune, as far as an earlier run did not; return the calibrations before and after."""
    upper = upper_end(settings.gflops_budget, target.dense)
    if state and (trained := state.load(training_state.TRAINED)):
        announce(Compression(session, student, teacher, target, upper=upper))
        session.training[:] = [TrainingPoint(**point) for point in trained["points"]]
        session.allocation[:] = [AllocationTrial(**trial) for trial in trained["trials"]]
        final = training_state.restore_trained(trained, student)
        return final, final
    saved = state.load(training_state.TRAINING) if state else None
    training = planned_training(session, settings, saved["step"] if saved else 0)
    few = 0 if saved else rough_samples(session)
    compression = Compression(session, student, teacher, target, training, upper)
    remaining = announce(compression, few)
    loss = 0.0  # the saved optimizers have the learning rate
    if saved:
        first = training_state.calibration(saved["first"])
        session.progress.message(f"Continuing after step {saved['step']} of the fine-tune.")
    else:
        first = _first_calibration(compression, few)
        loss = _loss_before_training(compression, few) if training and settings.learning_rate is None else 0.0
    found = _fine_tune(compression, first, settings, state, remaining, loss)
    if state and found is not None:
        training_state.save_trained(state, student, found, session.training, session.allocation)
    return first, found


def _first_calibration(compression: Compression, samples: int) -> Calibration:
    """Allocate the budget over the blocks if the method leaves this open, and calibrate roughly on few samples."""
    session, student, target = compression.session, compression.student, compression.target
    if allocation.needs_allocation(student, session.model.pruning):
        return allocation.allocate(session, student, compression.teacher, target, samples)
    session.allocation.clear()  # a comparison has had other methods before
    title = stage_titles.rough_calibration(samples)
    return calibration.calibrate(session, student, target, samples, rough=FIRST_CLOSE, title=title)


def _loss_before_training(compression: Compression, samples: int) -> float:
    """Return the loss of the student's outputs; an allocation has measured it already."""
    session = compression.session
    if session.allocation and (loss := session.allocation[0].loss) is not None:
        return loss
    session.progress.start(stage_titles.COMPARING, 0)
    cache = TeacherCache(compression.teacher, session.compute)
    loss = output_loss(session, compression.student, cache, allocation.COMPARED * samples)
    session.progress.finish()
    return loss


def _add_curve(
    session: Session, student: Prunable, target: Budget, settings: CompressSettings, final: Calibration
) -> None:
    """Save the calibrated curve in the student's settings."""
    upper = upper_end(settings.gflops_budget, target.dense)
    curve = elastic.calibrated_curve(session, student, target, upper, final)
    if student.pruning is not None:
        student.attach(replace(student.pruning, curve=curve, dense_gflops=target.dense))


def _fine_tune(
    compression: Compression,
    first: Calibration,
    settings: CompressSettings,
    state: StateFolder | None,
    remaining: RemainingTime | None,
    loss: float,
) -> Calibration | None:
    """Fine-tune the student from the first step that is left; return the calibration of its last state.

    `loss` is that of the outputs before the first step, see `output_loss`.
    """
    session, student, training = compression.session, compression.student, compression.training
    if training is None:
        return None
    rate = settings.learning_rate or default_rate(student.widths["vision"], loss)
    return FineTune(
        session=session,
        student=student,
        teacher=compression.teacher,
        target=compression.target,
        first=first,
        schedule=Schedule(training.steps, rate, settings.dictionary_learning_rate),
        samples=training.samples,
        accumulate=settings.accumulate,
        state=state,
        remaining=remaining,
        sampler=_sampler(compression, first, done=training.done),
    ).train()


def _sampler(compression: Compression, first: Calibration, done: int) -> ScaleSampler | None:
    """Return the sampler of a fine-tune for a range of budgets; after `done` steps its state is restored later."""
    session, target, upper = compression.session, compression.target, compression.upper
    if upper is None:
        return None
    if done:
        return ScaleSampler([], target.share, upper.share, session.settings.seed)
    return elastic.sampler(session, compression.student, target, upper, first, rough_samples(session))


def planned_training(session: Session, settings: CompressSettings, done: int = 0) -> TrainingPlan | None:
    """Return what the fine-tune does, or None if the settings ask for none; `done` steps were done before."""
    if settings.steps == 0 or settings.epochs == 0:
        return None
    steps = settings.number_of_steps(len(batching.rows(session, "train")))
    batching.require_training_batches(session, training_samples(settings, steps))
    return TrainingPlan(steps, training_samples(settings, steps), fine_tuning.validations(session, steps), done)


def rough_samples(session: Session) -> int:
    """Return the number of samples of the first calibration."""
    return math.ceil(FIRST_SHARE * len(batching.rows(session, "val", CALIBRATION_SAMPLES)))
