"""Calibrate the threshold scale of a student on the validation samples."""

from __future__ import annotations

import time

from madtp_cli import methods
from madtp_cli.compression import stage_titles, threshold_search
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.remaining_time import CALIBRATION_PASSES, ROUGH_PASSES
from madtp_cli.compression.threshold_search import CLOSE_ENOUGH, NARROWEST, Calibration
from madtp_cli.evaluation import batching, run
from madtp_cli.evaluation.session import Session
from madtp_cli.methods import Preset
from madtp_cli.models.prunable import Prunable


def calibrate(
    session: Session,
    student: Prunable,
    target: Budget,
    samples: int | None,
    start: float | None = None,
    rough: float | None = None,
    *,
    title: str = stage_titles.CALIBRATING,
) -> Calibration:
    """Set the student's threshold scale so that the validation samples meet the budget.

    Args:
        session: Data and compute config.
        student: A model with a dictionary; its threshold scale changes.
        target: The budget.
        samples: Number of validation samples to use, from the first one; all if None.
        start: First threshold scale to try; None for the one of the method.
        rough: Stop at this distance from the budget, as a share of it, instead of the usual one.
        title: Name of the stage; a run that calibrates several times gives each another one.
    """
    session.progress.start(title, 0)
    durations: list[float] = []

    def measure(threshold_scale: float) -> float:
        started = time.perf_counter()
        run.set_threshold_scale(student, threshold_scale)
        gflops = run.mean_gflops(student, batching.batches(session, "val", samples), session.compute)
        share = gflops / target.dense
        session.progress.figures(gflops=gflops, threshold_scale=threshold_scale)
        durations.append(time.perf_counter() - started)
        _expect(session, durations, ROUGH_PASSES if rough else CALIBRATION_PASSES)
        session.progress.advance(0, f"threshold scale {threshold_scale:.4g} gives {share:.4f} of the dense GFLOPs")
        return gflops

    start = start or first_scale(student)
    calibration = threshold_search.search(measure, target, start, rough or CLOSE_ENOUGH, rough or NARROWEST)
    run.set_threshold_scale(student, calibration.threshold_scale)
    session.progress.finish()
    return calibration


def first_scale(student: Prunable) -> float:
    """Return the first threshold scale to try for a student whose cost is not known."""
    settings = student.pruning
    return Preset().first_scale if settings is None else methods.get(settings.method).PRESET.first_scale


def _expect(session: Session, durations: list[float], passes: int) -> None:
    """Report how long the calibration still takes, from the seconds of its passes and their usual number."""
    if len(durations) > 1:  # the first pass also prepares the samples
        session.progress.expect(max(1, passes - len(durations)) * durations[-1])
