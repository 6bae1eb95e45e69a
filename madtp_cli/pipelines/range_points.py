"""Measure a model that was compressed for a range of budgets at several of them."""

from __future__ import annotations

from collections.abc import Callable

from madtp_cli.checkpoint.calibrated_curve import scale_at
from madtp_cli.compression import elastic, stage_titles
from madtp_cli.compression.budget import upper_end
from madtp_cli.compression.compress_model import CompressedModel
from madtp_cli.config import CompressSettings
from madtp_cli.evaluation import run
from madtp_cli.evaluation.quality import change, compared
from madtp_cli.evaluation.run import Measured
from madtp_cli.evaluation.session import Session
from madtp_cli.reporting.run_parts import BudgetPoint
from madtp_cli.reporting.schema import GflopsPart, LatencyPart


def measured_points(
    session: Session,
    settings: CompressSettings,
    compressed: CompressedModel,
    dense: Measured,
    time: Callable[[str], LatencyPart],
) -> list[BudgetPoint]:
    """Return the quality, the cost and the time at other budgets of a range; nothing for a single budget.

    Args:
        session: Data and compute config.
        settings: The settings with the budgets.
        compressed: The models. The threshold scale of the student stays.
        dense: The dense model's results on the reported samples.
        time: Times both models; its argument is a label for the names of the stages.
    """
    target, student = compressed.target, compressed.student
    points = []
    for share in elastic.reported_shares(target, upper_end(settings.gflops_budget, target.dense)):
        scale = scale_at(compressed.settings.curve, share)
        run.set_threshold_scale(student, scale)
        evaluating, matching = stage_titles.evaluation_at(share)
        pruned = run.measure(session, evaluating, student, settings.split, matching=matching)
        quality = change(session, dense, compared(session, dense, pruned))
        cost = GflopsPart.of(dense.gflops(compressed.teacher).mean(), pruned.gflops(student).mean())
        points.append(
            BudgetPoint(
                requested=share,
                threshold_scale=scale,
                gflops=float(cost.pruned or 0),
                share=float(cost.share or 0),
                pruned=quality.pruned,
                change=quality.change,
                interval95=quality.interval95,
                pruned_interval95=quality.pruned_interval95,
                pruned_ms=float(time(stage_titles.share_in_words(share)).pruned_ms or 0),
            )
        )
    run.set_threshold_scale(student, compressed.calibration.threshold_scale)
    return points
