"""Time one batch at the start, and say how long each stage of the compression takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from madtp_cli import processes
from madtp_cli.compression import allocation, elastic, optimizers, stage_titles
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.calibration import first_scale
from madtp_cli.compression.muon import muon, same_shapes
from madtp_cli.compression.remaining_time import (
    CALIBRATION_PASSES,
    FIRST_PASSES,
    ROUGH_PASSES,
    Pace,
    RemainingTime,
    in_words,
)
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.data.caption_sampling import SampledCaptions
from madtp_cli.evaluation import batching, planning, run, timing
from madtp_cli.evaluation.compute import Batch, inputs_of
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import PlannedStage

#: Seconds to write the result: at least this, and these bytes per second.
SAVING_SECONDS, BYTES_PER_SECOND = 0.3, 2e8


@dataclass(frozen=True)
class TrainingPlan:
    """What a fine-tune does.

    Attributes:
        steps: Number of steps.
        samples: Number of training samples to use; all if None.
        candidates: The steps after which a state is a candidate, and the samples that it is compared on.
        done: Number of steps that an earlier run did.
    """

    steps: int
    samples: int | None
    candidates: Mapping[int, int]
    done: int = 0


@dataclass(frozen=True)
class Compression:
    """What a compression works on, its fine-tune if there is one, and the upper end of a range of budgets."""

    session: Session
    student: Prunable
    teacher: Prunable
    target: Budget
    training: TrainingPlan | None = None
    upper: Budget | None = None


def announce(compression: Compression, rough_samples: int = 0) -> RemainingTime | None:
    """Time one batch, and report how long all stages take and how much memory is needed.

    Args:
        compression: The models, the data and the fine-tune.
        rough_samples: Number of samples of the first calibration; 0 if there is none.

    Returns:
        The remaining time of the steps, to be updated after each step; None without fine-tuning.
    """
    session, training = compression.session, compression.training
    session.progress.start(stage_titles.ESTIMATING, 0)
    pace = measure_pace(compression)
    remaining = remaining_steps(compression, pace, training) if training else None
    session.progress.finish()
    stages = list(planned_stages(compression, pace, rough_samples, remaining))
    session.progress.plan(stages)
    session.progress.message(_message(compression, stages))
    return remaining


def _message(compression: Compression, stages: list[PlannedStage]) -> str:
    """Return how long the run takes, and what needs memory."""
    whole = in_words(sum(stage.seconds for stage in stages))
    training, batch_size = compression.training, compression.session.settings.batch_size
    if training is None:
        return f"Calibration and the measurement of the result take about {whole}."
    weights = sum(parameter.nbytes for parameter in compression.student.parameters())
    steps = sum(stage.seconds for stage in stages if stage.title == stage_titles.FINE_TUNING)
    return (
        f"Everything takes about {whole}; {in_words(steps)} of it are {training.steps - training.done} steps of "
        f"{batch_size} samples. The rest is validation, calibration and the measurement of the result. In addition to "
        # Two models, gradients, momentum and the best state so far, each of the size of the weights.
        f"activations, {5 * weights / 2**20:,.0f} MiB of memory are needed."
    )


def planned_stages(
    compression: Compression, pace: Pace, rough_samples: int, remaining: RemainingTime | None
) -> Iterator[PlannedStage]:
    """Yield the stages of the rest of the compression in their order. Several processes share the samples."""
    session, training = compression.session, compression.training
    validation = len(batching.rows(session, "val"))
    calibrated = processes.most_of(min(validation, CALIBRATION_SAMPLES))
    if rough_samples:
        rough = pace.calibration(processes.most_of(rough_samples), ROUGH_PASSES)
        if allocation.needs_allocation(compression.student, session.model.pruning):
            yield from allocation.planned_stages(compression.student, processes.most_of(rough_samples), pace)
        else:
            yield PlannedStage(stage_titles.rough_calibration(rough_samples), rough, "pruned")
        if training and compression.upper:
            yield PlannedStage(stage_titles.UPPER_END_ROUGHLY, rough, "pruned")
    if training and remaining:
        yield PlannedStage(stage_titles.FINE_TUNING, remaining.left(), "training")
        yield from _validation_stages(session, pace, training, calibrated)
    passes = CALIBRATION_PASSES if training else FIRST_PASSES
    yield PlannedStage(stage_titles.CALIBRATING, pace.calibration(calibrated, passes), "pruned")
    if validation > CALIBRATION_SAMPLES:
        last = pace.calibration(processes.most_of(validation), CALIBRATION_PASSES)
        yield PlannedStage(stage_titles.full_calibration(validation), last, "pruned")
    yield from _curve_stages(compression, pace, processes.most_of(validation))
    yield from _reporting_stages(compression, pace)


def _curve_stages(compression: Compression, pace: Pace, samples: int) -> Iterator[PlannedStage]:
    """Yield the stages that measure the curve of a range of budgets."""
    if compression.upper is None:
        return
    points = math.ceil(math.log(compression.upper.share / compression.target.share) / math.log(elastic.FINEST))
    for title, passes in ((stage_titles.UPPER_END, FIRST_PASSES), (stage_titles.CURVE, max(1, points))):
        yield PlannedStage(title, samples * passes * pace.trained, "pruned")


def _validation_stages(session: Session, pace: Pace, training: TrainingPlan, calibrated: int) -> Iterator[PlannedStage]:
    """Yield the stages that compare late states on validation samples."""
    left = {step: samples for step, samples in training.candidates.items() if step >= training.done}
    for number, (step, samples) in enumerate(left.items()):
        passes = CALIBRATION_PASSES if number else FIRST_PASSES
        seconds = pace.calibration(calibrated, passes)
        yield PlannedStage(stage_titles.calibration_after(step), seconds, "pruned")
        if not samples:
            continue
        mine = processes.most_of(samples)
        seconds = mine * (pace.pruned_answer + (0.0 if number else pace.preparation))
        if not number and not session.labelled:  # the first state is compared with answers of the dense model
            seconds += mine * pace.dense_answer
        yield PlannedStage(stage_titles.validation_after(step), seconds, "pruned")


def _reporting_stages(compression: Compression, pace: Pace) -> Iterator[PlannedStage]:
    """Yield the stages that measure both models and save the result."""
    session = compression.session
    rows = batching.rows(session, session.settings.split)
    mine, pairs = processes.most_of(len(rows)), planning.most_pairs(session, rows)
    dense, pruned = stage_titles.EVALUATING
    yield PlannedStage(dense, mine * (pace.dense_answer + pace.preparation), "dense")
    yield PlannedStage(stage_titles.MATCHING[0], pairs * pace.dense_pair, "dense pairs")
    yield PlannedStage(pruned, mine * pace.pruned_answer, "pruned")
    yield PlannedStage(stage_titles.MATCHING[1], pairs * pace.pruned_pair, "pruned pairs")
    size = min(session.settings.batch_size, len(rows))
    yield from timing.planned_stages(size, [size * pace.dense, size * pace.pruned])
    yield from _range_stages(compression, pace, len(rows), pairs)
    weights = sum(parameter.nbytes for parameter in compression.student.parameters())
    yield PlannedStage(stage_titles.SAVING, SAVING_SECONDS + weights / BYTES_PER_SECOND, "files")


def _range_stages(compression: Compression, pace: Pace, samples: int, pairs: int) -> Iterator[PlannedStage]:
    """Yield the stages that measure the student at other budgets of a range; the time rises evenly with the share."""
    lower = compression.target.share
    for share in elastic.reported_shares(compression.target, compression.upper):
        part = (share - lower) / (1 - lower)

        def seconds(dense: float, pruned: float, part: float = part) -> float:
            return pruned + part * (dense - pruned)

        evaluating, matching = stage_titles.evaluation_at(share)
        yield PlannedStage(
            evaluating, processes.most_of(samples) * seconds(pace.dense_answer, pace.pruned_answer), "pruned"
        )
        yield PlannedStage(matching, pairs * seconds(pace.dense_pair, pace.pruned_pair), "pruned pairs")
        size = min(compression.session.settings.batch_size, samples)
        forward = [size * pace.dense, size * seconds(pace.dense, pace.pruned)]
        yield from timing.planned_stages(size, forward, stage_titles.share_in_words(share))


def remaining_steps(compression: Compression, pace: Pace, training: TrainingPlan) -> RemainingTime:
    """Return the prediction for the training steps."""
    session = compression.session
    size, rows = session.settings.batch_size, len(batching.rows(session, "train", training.samples))
    mine = processes.most_of(size)
    return RemainingTime(
        steps=training.steps,
        new_steps=min(training.steps, math.ceil(rows / size)),
        kept=_kept_share(session, compression.teacher, training.samples),
        student=pace.student_step(mine),
        teacher=mine * pace.dense,
        done=training.done,
    )


def measure_pace(compression: Compression) -> Pace:
    """Time one validation batch, with and without answers, the preparation of a batch, and the optimizers.

    The student is timed at the first threshold scale that the calibration tries.
    """
    session, student = compression.session, compression.student
    run.set_threshold_scale(student, first_scale(student))
    processes.from_main(lambda: len(batching.readable_rows(session, session.settings.split)))  # for the timing
    batch = batching.one_batch(session, "val")
    inputs = session.compute.moved(inputs_of(batch))
    models = {"dense": compression.teacher, "pruned": student}
    size = len(batch["pixel_values"])
    forward = timing.in_turns(models, [inputs], session.compute, turns=2)
    dense, pruned = (min(forward[name]) / size for name in models)
    answered = [planning.answer_seconds(session, model, "val", batch) for model in models.values()]
    (dense_answer, dense_pair), (pruned_answer, pruned_pair) = answered
    seconds_at = _by_cost(compression, batch, dense, pruned)
    target, upper = compression.target.gflops, (compression.upper or compression.target).gflops
    at_budget = seconds_at(target)
    split = "train" if compression.training else session.settings.split
    return Pace(
        dense=dense,
        pruned=at_budget,
        trained=seconds_at((target + upper) / 2),
        dense_answer=max(dense, dense_answer),
        pruned_answer=max(at_budget, pruned_answer + at_budget - pruned),
        dense_pair=dense_pair,
        pruned_pair=pruned_pair,
        optimizer=optimizer_seconds(student) if compression.training else 0.0,
        preparation=planning.preparation_seconds(session, split),
    )


def _by_cost(compression: Compression, batch: Batch, dense: float, pruned: float) -> Callable[[float], float]:
    """Return a function that gives the seconds of a forward pass by its GFLOPs, from those of two passes.

    Time is taken as linear in the multiply-adds between the timed pass of the student and the dense one.
    """
    most = compression.target.dense
    cost = run.mean_gflops(compression.student, [batch], compression.session.compute)
    if cost >= most:
        return lambda gflops: dense
    return lambda gflops: max(0.0, pruned + (dense - pruned) * (gflops - cost) / (most - cost))


def optimizer_seconds(model: nn.Module) -> float:
    """Return the seconds of a step of Muon.

    Each kind of matrices that are computed together is timed once, on copies, after a warm-up.
    """
    kinds: dict[tuple[torch.Size, int], float] = {}
    seconds = 0.0
    for matrices in same_shapes(optimizers.tower_matrices(model)):
        kind = matrices[0].shape, len(matrices)
        if kind not in kinds:
            kinds[kind] = _step_seconds(matrices)
        seconds += kinds[kind]
    return seconds


def _step_seconds(matrices: Sequence[Tensor]) -> float:
    copied = [nn.Parameter(matrix.detach().clone()) for matrix in matrices]
    for copy in copied:
        copy.grad = torch.ones_like(copy)
    optimizer = muon(copied, lr=0.0, ns_steps=optimizers.MUON_ITERATIONS)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        optimizer.step()
        seconds = time.perf_counter() - started
    return seconds


def _kept_share(session: Session, teacher: Prunable, samples: int | None) -> float:
    """Return the share of the teacher's outputs that fits in its cache; none if each epoch has other captions."""
    rows, seed = batching.rows(session, "train", samples), session.settings.seed
    first, second = (SampledCaptions(rows, seed, epoch)[0].text for epoch in range(2))
    if samples is None and first != second:
        return 0.0
    return _sample_cache(session, teacher).share_that_fits(len(rows))


def target_bytes(session: Session, teacher: Prunable) -> int:
    """Return the bytes of the teacher's outputs for one training sample."""
    return _sample_cache(session, teacher).used_bytes


def _sample_cache(session: Session, teacher: Prunable) -> TeacherCache:
    """Return a cache with the outputs for one training sample."""
    cache = TeacherCache(teacher, session.compute)
    for batch in batching.full_batches(session, "train", 1, 1):
        cache.targets(session.compute.moved(batch))
    return cache
