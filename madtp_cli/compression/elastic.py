"""Compression for a range of budgets: the threshold scale of each training step, and the calibrated curve."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from madtp_cli.checkpoint.calibrated_curve import Curve, curve_of, scale_at
from madtp_cli.compression import calibration, stage_titles
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.evaluation import batching, run
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable

#: Between two neighbouring points of the curve the cost changes by at most this factor, so that a scale between them
#: costs what is requested within 2 %.
FINEST = 1.15
#: Two points whose scales differ by less than this share are not divided: the cost jumps between them.
NEAREST = 1e-3
#: Largest number of passes for the points between the ends.
MOST_POINTS = 20
#: The calibration of the upper end before the training stops at this distance from it.
ROUGH_CLOSE = 0.05
#: How fast the threshold scale follows the cost of the training batches, whose noise is larger than their drift.
FOLLOWING = 0.05
#: Budgets of a range whose quality is reported: both ends and some between, in equal ratios.
REPORTED = 4


@dataclass
class ScaleSampler:
    """Draws the threshold scale of each training step, so that the costs are spread evenly over the range.

    Attributes:
        curve: Points measured before the training.
        low, high: Ends of the range, as shares of the dense GFLOPs.
        seed: Seed of the draws.
        factor: Corrects the curve while the scores are learned.
        aim: The share of the dense GFLOPs that the last drawn scale should cost.
    """

    curve: Curve
    low: float
    high: float
    seed: int
    factor: float = 1.0
    aim: float = field(init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.aim = self.low

    def draw(self) -> float:
        """Return the threshold scale of the next step."""
        self.aim = self._random.uniform(self.low, self.high)
        return scale_at(self.curve, self.aim) * self.factor

    def follow(self, share: float) -> None:
        """Correct the scales by the cost of the last step, as a share of the dense GFLOPs."""
        self.factor *= (share / self.aim) ** (FOLLOWING / self._slope())

    def state(self) -> dict[str, Any]:
        """Return what changes from draw to draw, and the curve, whose measurement need not be repeated."""
        return {"curve": self.curve, "factor": self.factor, "aim": self.aim, "random": self._random.getstate()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from the state of an earlier run for the same range and seed."""
        self.curve, self.factor, self.aim = saved["curve"], saved["factor"], saved["aim"]
        self._random.setstate(saved["random"])

    def _slope(self) -> float:
        """Return the mean power of the threshold scale by which the cost falls."""
        (first, most), (last, least) = self.curve[0], self.curve[-1]
        return max(1.0, math.log(most / least) / math.log(last / first)) if last > first else 1.0


def sampler(
    session: Session, student: Prunable, target: Budget, upper: Budget, first: Calibration, samples: int
) -> ScaleSampler:
    """Calibrate the upper end of the range roughly, set the scale of the first step, and return the sampler.

    Args:
        session: Data and compute config.
        student: The student; its threshold scale changes.
        target, upper: The ends of the range.
        first: The calibration of the lower end.
        samples: Number of validation samples of that calibration.
    """
    title = stage_titles.UPPER_END_ROUGHLY
    highest = calibration.calibrate(session, student, upper, samples, first.threshold_scale, ROUGH_CLOSE, title=title)
    made = ScaleSampler(curve_of(_shares(target, first, highest)), target.share, upper.share, session.settings.seed)
    run.set_threshold_scale(student, made.draw())
    return made


def calibrated_curve(
    session: Session, student: Prunable, target: Budget, upper: Budget | None, final: Calibration
) -> list[list[float]]:
    """Return the curve of a student: for one budget the scales that were tried, for a range as many as it needs.

    A single point is no curve.

    Args:
        session: Data and compute config.
        student: The student; its threshold scale stays.
        target: The budget, or the lower end of the range.
        upper: The upper end of the range; None for one budget.
        final: The last calibration for `target`, on all validation samples.
    """
    if upper is None:
        points = without_gaps(curve_of(_shares(target, final)), target.share)
    else:
        points = _curve_of_range(session, student, target, upper, final)
    return points if len(points) > 1 else []


def _curve_of_range(
    session: Session, student: Prunable, target: Budget, upper: Budget, final: Calibration
) -> list[list[float]]:
    """Calibrate the upper end of the range, and measure points between the ends."""
    title, scale = stage_titles.UPPER_END, final.threshold_scale
    highest = calibration.calibrate(session, student, upper, None, scale, title=title)
    session.progress.start(stage_titles.CURVE, 0)

    def share(threshold_scale: float) -> float:
        run.set_threshold_scale(student, threshold_scale)
        gflops = run.mean_gflops(student, batching.batches(session, "val"), session.compute)
        session.progress.figures(gflops=gflops, threshold_scale=threshold_scale)
        session.progress.advance(0, f"threshold scale {threshold_scale:.4g} costs {gflops / target.dense:.4f}")
        return gflops / target.dense

    most, least = upper.share * 1.01, target.share * 0.99
    curve = refine(curve_of(_shares(target, final, highest)), share, most, least)
    run.set_threshold_scale(student, final.threshold_scale)
    session.progress.finish()
    return [point for point in curve if least <= point[1] <= most]


def _shares(target: Budget, *calibrations: Calibration) -> list[tuple[float, float]]:
    """Return all (threshold scale, share of the dense GFLOPs) that calibrations tried."""
    return [(scale, gflops / target.dense) for found in calibrations for scale, gflops in found.tried]


def reported_shares(target: Budget, upper: Budget | None) -> list[float]:
    """Return the budgets of a range whose quality is reported in addition to that of its lower end.

    >>> lower, upper = (Budget("", share, share, 1.0) for share in (0.2, 0.8))
    >>> [round(share, 3) for share in reported_shares(lower, upper)]
    [0.317, 0.504, 0.8]
    """
    if upper is None:
        return []
    ratio = upper.share / target.share
    return [target.share * ratio ** (number / (REPORTED - 1)) for number in range(1, REPORTED)]


def without_gaps(curve: list[list[float]], share: float) -> list[list[float]]:
    """Return the part of a curve around a share whose neighbouring points are close enough to interpolate.

    >>> without_gaps([[0.1, 0.8], [0.2, 0.4], [0.21, 0.38], [0.3, 0.2]], 0.4)
    [[0.2, 0.4], [0.21, 0.38]]
    """
    if not curve:
        return curve
    first = last = min(range(len(curve)), key=lambda number: abs(math.log(curve[number][1] / share)))
    while first > 0 and curve[first - 1][1] <= FINEST * curve[first][1]:
        first -= 1
    while last + 1 < len(curve) and curve[last][1] <= FINEST * curve[last + 1][1]:
        last += 1
    return curve[first : last + 1]


def refine(curve: list[list[float]], measure: Callable[[float], float], most: float, least: float) -> list[list[float]]:
    """Measure scales in the widest gaps of a curve until all gaps between two shares are small, or cannot be divided.

    A gap that stays wide is a jump of the cost, or its middle costs more than its upper end.

    >>> refine([[0.1, 0.8], [0.4, 0.2]], lambda scale: 0.08 / scale, 1.0, 0.1)[1][0] < 0.13
    True
    """
    measured: set[float] = set()
    while len(measured) < MOST_POINTS:
        inner = [point for point in curve if least <= point[1] <= most]
        gaps = [(upper[1] / lower[1], math.sqrt(upper[0] * lower[0]), upper, lower) for upper, lower in pairwise(inner)]
        wide = [
            (width, middle)
            for width, middle, upper, lower in gaps
            if width > FINEST and lower[0] > upper[0] * (1 + NEAREST) and middle not in measured
        ]
        if not wide:
            break
        _, scale = max(wide)
        measured.add(scale)
        curve = curve_of([*((point[0], point[1]) for point in curve), (scale, measure(scale))])
    return curve
