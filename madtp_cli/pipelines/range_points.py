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
from madtp_cli.reporting.schema import ChangePart, GflopsPart, LatencyPart


def measured_points(
    session: Session,
    settings: CompressSettings,
    compressed: CompressedModel,
    dense: Measured,
    time: Callable[[str], LatencyPart],
) -> list[BudgetPoint]:
    """Return the quality, the cost and the time at other budgets of a range; nothing for a single budget.

    A range also has no other budgets if its calibration found no curve, for example where the cost jumps.

    Args:
        session: Data and compute config.
        settings: The settings with the budgets.
        compressed: The models. The threshold scale of the student stays.
        dense: The dense model's results on the reported samples.
        time: Times both models; its argument is a label for the names of the stages.
    """
    target, student, points = compressed.target, compressed.student, list[BudgetPoint]()
    if not compressed.settings.curve:
        return points
    for share in elastic.reported_shares(target, upper_end(settings.gflops_budget, target.dense)):
        run.set_threshold_scale(student, scale_at(compressed.settings.curve, share))
        evaluating, matching = stage_titles.evaluation_at(share)
        pruned = run.measure(session, evaluating, student, settings.split, matching=matching)
        quality = change(session, dense, compared(session, dense, pruned))
        cost = GflopsPart.of(dense.gflops(compressed.teacher).mean(), pruned.gflops(student).mean())
        latency = time(stage_titles.share_in_words(share))
        points.append(_point(share, compressed.settings.threshold_scale, quality, cost, latency))
    run.set_threshold_scale(student, compressed.calibration.threshold_scale)
    return points


def _point(share: float, scale: float, quality: ChangePart, cost: GflopsPart, latency: LatencyPart) -> BudgetPoint:
    return BudgetPoint(
        requested=share,
        threshold_scale=scale,
        gflops=float(cost.pruned or 0),
        share=float(cost.share or 0),
        pruned=quality.pruned,
        change=quality.change,
        interval95=quality.interval95,
        pruned_interval95=quality.pruned_interval95,
        pruned_ms=float(latency.pruned_ms or 0),
    )
