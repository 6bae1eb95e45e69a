"""Compression for a range of budgets: the threshold scale of each training step, and the calibrated curve."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from madtp_cli.checkpoint.calibrated_curve import Curve, curve_of, scale_at
from madtp_cli.compression import threshold_search
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.evaluation import batching, run
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable

#: Between two neighbouring points of the curve the cost changes by at most this factor, so that a scale between them
#: costs what is requested within 2 %.
FINEST = 1.15
#: Largest number of passes for the points between the ends.
MOST_POINTS = 20
#: How fast the sampled scales follow the cost of the training batches.
FOLLOWING = 0.05


@dataclass
class ScaleSampler:
    """Draws the threshold scale of each training step, so that the costs are spread evenly over the range.

    Attributes:
        curve: Points measured before the training.
        low, high: Ends of the range, as shares of the dense GFLOPs.
        seed: Seed of the draws.
        factor: Corrects the curve while the scores are learned.
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

    def _slope(self) -> float:
        """Return the mean power of the threshold scale by which the cost falls."""
        (first, most), (last, least) = self.curve[0], self.curve[-1]
        return max(1.0, math.log(most / least) / math.log(last / first)) if last > first else 1.0


def sampler(session: Session, student: Prunable, target: Budget, upper: Budget, samples: int) -> ScaleSampler:
    """Return the sampler of a fine-tune, after a rough calibration of both ends of the range."""
    measured = _Measured(session, student, target.dense, samples)
    tried = measured.ends(target, upper, close=0.05)
    made = ScaleSampler(curve_of(tried), target.share, upper.share, session.settings.seed)
    run.set_threshold_scale(student, made.draw())
    return made


def calibrated_curve(
    session: Session, student: Prunable, target: Budget, upper: Budget | None, final: Calibration, samples: int | None
) -> list[list[float]]:
    """Return the curve of a student: for one budget the scales that were tried, for a range as many as it needs.

    Args:
        session: Data and compute config.
        student: The student; its threshold scale stays.
        target: The budget, or the lower end of the range.
        upper: The upper end of the range; None for one budget.
        final: The last calibration for `target`.
        samples: Number of validation samples; all if None.
    """
    tried = [(scale, gflops / target.dense) for scale, gflops in final.tried]
    if upper is None:
        return without_gaps(curve_of(tried), target.share)
    measured = _Measured(session, student, target.dense, samples)
    session.progress.start("Calibrating the curve", 0)
    tried = [*tried, *measured.ends(target, upper, start=final.threshold_scale)]
    most, least = upper.share * 1.01, target.share * 0.99
    points = [point for point in refine(curve_of(tried), measured.share, most, least) if least <= point[1] <= most]
    run.set_threshold_scale(student, final.threshold_scale)
    session.progress.finish()
    return points


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
    """Measure scales in the widest gaps of a curve until all gaps between two shares are small.

    >>> refine([[0.1, 0.8], [0.4, 0.2]], lambda scale: 0.08 / scale, 1.0, 0.1)[1][0] < 0.13
    True
    """
    for _ in range(MOST_POINTS):
        inner: Sequence[list[float]] = [point for point in curve if least <= point[1] <= most]
        gaps = [(upper[1] / lower[1], upper, lower) for upper, lower in pairwise(inner)]
        if not gaps or max(gaps)[0] <= FINEST:
            break
        _, upper, lower = max(gaps)
        scale = math.sqrt(upper[0] * lower[0])
        if scale in (upper[0], lower[0]):
            break
        curve = curve_of([*((point[0], point[1]) for point in curve), (scale, measure(scale))])
    return curve


@dataclass
class _Measured:
    """Measures a student's cost on validation samples."""

    session: Session
    student: Prunable
    dense: float
    samples: int | None

    def gflops(self, threshold_scale: float) -> float:
        """Return the mean GFLOPs per sample at a threshold scale."""
        run.set_threshold_scale(self.student, threshold_scale)
        return run.mean_gflops(self.student, batching.batches(self.session, "val", self.samples), self.session.compute)

    def share(self, threshold_scale: float) -> float:
        """Return the cost at a threshold scale as a share of the dense cost."""
        return self.gflops(threshold_scale) / self.dense

    def ends(
        self, target: Budget, upper: Budget, close: float = threshold_search.CLOSE_ENOUGH, start: float = 0.1
    ) -> list[tuple[float, float]]:
        """Search both ends of the range, and return all that was measured."""
        tried: list[tuple[float, float]] = []
        for end in (target, upper):
            found = threshold_search.search(self.gflops, end, start, close, max(close, threshold_search.NARROWEST))
            tried += [(scale, gflops / self.dense) for scale, gflops in found.tried]
        return tried
