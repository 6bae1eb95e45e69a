"""Time one batch before the fine-tune, and say how long the rest of the compression takes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import nn

from madtp_cli.compression import optimizers
from madtp_cli.compression.muon import muon
from madtp_cli.compression.remaining_time import CALIBRATION_PASSES, Pace, RemainingTime, in_words
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.data.caption_sampling import SampledCaptions
from madtp_cli.evaluation import batching, run, timing
from madtp_cli.evaluation.compute import inputs_of
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.models.prunable import Prunable


def announce(
    session: Session,
    student: Prunable,
    teacher: Prunable,
    steps: int,
    samples: int | None,
    validations: Mapping[int, int],
    done: int = 0,
) -> RemainingTime:
    """Time one batch, and report how long the fine-tune and the rest take and how much memory is needed.

    Args:
        session: Data and compute config.
        student: The pruned model.
        teacher: The dense model.
        steps: Number of steps.
        samples: Number of training samples that are used; all if None.
        validations: The steps after which a state is calibrated, and the validation samples it is evaluated on.
        done: Number of steps that an earlier run did.

    Returns:
        The remaining time of the fine-tune, to be updated after each step.
    """
    session.progress.start("Estimating the time", 0)
    pace = measure_pace(session, student, teacher)
    session.progress.finish()
    kept = _kept_share(session, teacher, samples)
    remaining = remaining_time(session, pace, steps, samples, validations, kept)
    remaining.done = done
    weights = sum(parameter.nbytes for parameter in student.parameters())
    session.progress.message(
        f"Fine-tuning for {steps - done} steps of {session.settings.batch_size} samples takes about "
        f"{in_words(remaining.left())} with its validation, then evaluation and timing take about "
        f"{in_words(afterwards(session, pace))}. In addition to activations, "
        # Two models, gradients, momentum and the best state so far, each of the size of the weights.
        f"{5 * weights / 2**20:,.0f} MiB of memory are needed."
    )
    return remaining


def remaining_time(
    session: Session, pace: Pace, steps: int, samples: int | None, validations: Mapping[int, int], kept: float
) -> RemainingTime:
    """Return the prediction for the fine-tune, see `announce`.

    `kept` is the share of the teacher's outputs that fits in its cache.
    """
    size = session.settings.batch_size
    rows = len(batching.rows(session, "train", samples))
    calibrated = len(batching.rows(session, "val", CALIBRATION_SAMPLES))
    pauses = {step: pace.validation(calibrated, evaluated) for step, evaluated in validations.items()}
    if pauses and not session.labelled:  # the first state is compared with answers of the dense model
        pauses[min(pauses)] += pace.dense_answer * max(validations.values())
    return RemainingTime(
        steps=steps,
        new_steps=min(steps, math.ceil(rows / size)),
        kept=kept,
        student=pace.student_step(size),
        teacher=size * pace.dense,
        pauses=pauses,
    )


def afterwards(session: Session, pace: Pace) -> float:
    """Return the seconds of what follows the fine-tune: the last calibration, evaluation and timing."""
    validation, evaluated = (len(batching.rows(session, split)) for split in ("val", session.settings.split))
    last = CALIBRATION_PASSES * validation * pace.pruned if validation > CALIBRATION_SAMPLES else 0.0
    size = min(session.settings.batch_size, evaluated)
    turns = timing.turns_for(size * (pace.dense + pace.pruned))
    return last + pace.evaluation(evaluated) + pace.timing(size, turns)


def measure_pace(
    session: Session, student: Prunable, teacher: Prunable, split: str = "val", prepared: str = "train"
) -> Pace:
    """Time one batch, with and without answers, the preparation of a batch, and the optimizers.

    Args:
        session: Data and compute config.
        student, teacher: The pruned and the dense model.
        split, prepared: The splits of the batch that the models run on, and of the batch that is only prepared.
    """
    batch = next(iter(batching.batches(session, split)))
    size, inputs = len(batch["pixel_values"]), session.compute.moved(inputs_of(batch))
    forward = timing.in_turns({"dense": teacher, "pruned": student}, [inputs], session.compute, turns=2)
    rows = batching.rows(session, split, size) if session.labelled else ()
    answered = []
    for model in (teacher, student):
        started = time.perf_counter()
        run.run(model, [batch], session.task, session.compute, rows)
        answered.append((time.perf_counter() - started) / size)
    started = time.perf_counter()
    made = batching.full_batches(session, prepared, session.settings.batch_size, 1)
    preparation = (time.perf_counter() - started) / len(made[0]["pixel_values"])
    return Pace(
        min(forward["dense"]) / size,
        min(forward["pruned"]) / size,
        answered[0],
        answered[1],
        optimizer_seconds(student),
        preparation / max(1, session.settings.workers or 1),
    )


def optimizer_seconds(model: nn.Module) -> float:
    """Return the seconds of a step of Muon: each shape of matrix is timed once, on a copy, after a warm-up."""
    shapes: dict[torch.Size, list[nn.Parameter]] = {}
    for matrix in optimizers.tower_matrices(model):
        shapes.setdefault(matrix.shape, []).append(matrix)
    return sum(len(alike) * _step_seconds(alike[0]) for alike in shapes.values())


def _step_seconds(matrix: nn.Parameter) -> float:
    copied = nn.Parameter(matrix.detach().clone())
    copied.grad = torch.ones_like(copied)
    optimizer = muon([copied], lr=0.0, ns_steps=optimizers.MUON_ITERATIONS)
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
