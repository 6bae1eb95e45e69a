"""Search for the threshold scale whose mean cost meets a budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from madtp_cli.compression.budget import Budget

#: The search stops if the cost is below the budget by at most this share of it, a fifth of the tolerance.
CLOSE_ENOUGH = 0.002
#: The search also stops if the scale is known to this share of itself: the cost jumps there.
NARROWEST = 1e-5
#: Largest number of passes over the calibration samples.
MOST_PASSES = 24
#: Below the first nothing is pruned; above the second everything but `min_keep` tokens is.
LEAST_SCALE, MOST_SCALE = 1e-6, 1e6
#: Range of `Calibration.slope`, and its value if too few scales were tried to compute it.
LEAST_SLOPE, MOST_SLOPE, UNKNOWN_SLOPE = 1.0, 30.0, 4.0


@dataclass(frozen=True)
class Calibration:
    """The result of a search.

    Attributes:
        threshold_scale: The scale that was found.
        gflops: Mean GFLOPs per calibration sample at this scale.
        tried: All (threshold scale, GFLOPs) that were measured, by rising scale.
    """

    threshold_scale: float
    gflops: float
    tried: tuple[tuple[float, float], ...]

    def slope(self) -> float:
        """Return the power of the threshold scale by which the cost falls near it, within 1-30.

        With a slope of 4, a scale 1 % higher costs 4 % less.
        """
        below = [point for point in self.tried if point[0] < self.threshold_scale]
        above = [point for point in self.tried if point[0] > self.threshold_scale]
        near = [point for point in (*below[-1:], (self.threshold_scale, self.gflops), *above[:1]) if point[0] > 0]
        (first, high_cost), (last, low_cost) = (near[0], near[-1]) if near else ((1.0, 1.0), (1.0, 1.0))
        if last <= first * 1.001 or low_cost <= 0 or high_cost <= low_cost:
            return UNKNOWN_SLOPE
        return min(MOST_SLOPE, max(LEAST_SLOPE, math.log(high_cost / low_cost) / math.log(last / first)))


def search(
    measure: Callable[[float], float],
    budget: Budget,
    start: float = 1.0,
    close: float = CLOSE_ENOUGH,
    narrow: float = NARROWEST,
) -> Calibration:
    """Find the threshold scale whose mean cost is closest to the budget, below it if that meets it.

    Args:
        measure: Returns the mean GFLOPs of the calibration samples at a threshold scale. The cost falls (nearly) as
            the scale rises; at 0 the model is dense. Each call is one pass over the samples.
        budget: The budget.
        start: First scale to try, such as the result of an earlier search.
        close: The search stops if the cost is below the budget by at most this share of it.
        narrow: The search also stops if the scale is known to this share of itself.
    """
    if budget.share >= 1:
        return Calibration(0.0, budget.dense, ())
    run = _Search(measure, budget, close, narrow, [])
    run.find(start)
    below = [point for point in run.tried if point[1] <= budget.gflops]
    met = [point for point in run.tried if budget.is_met(point[1])]
    # The cost can jump from too little to slightly too much, or the range of scales can end above the budget.
    best = [point for point in below if point in met] or met or below or run.tried
    # Of the scales with the same cost the smallest one, which prunes least.
    threshold_scale, gflops = min(best, key=lambda point: (abs(point[1] - budget.gflops), point[0]))
    return Calibration(threshold_scale, gflops, tuple(sorted(run.tried)))


@dataclass
class _Search:
    """One search; `tried` collects all (threshold scale, GFLOPs)."""

    measure: Callable[[float], float]
    budget: Budget
    close: float
    narrow: float
    tried: list[tuple[float, float]]

    @property
    def aim(self) -> float:
        """The GFLOPs in the middle of the range that ends the search."""
        return self.budget.gflops * (1 - self.close / 2)

    def excess(self, threshold_scale: float) -> float:
        """Measure a scale and return its GFLOPs above the aim."""
        self.tried.append((threshold_scale, self.measure(threshold_scale)))
        return self.tried[-1][1] - self.aim

    def is_close(self) -> bool:
        """Return whether a scale was measured that is close enough."""
        return any(self.budget.gflops * (1 - self.close) <= gflops <= self.budget.gflops for _, gflops in self.tried)

    def find(self, start: float) -> None:
        """Try scales until one is close: regula falsi (Illinois) on the logarithm of the scale.

        A pass over the calibration samples is the expensive part. Near the budget the cost is almost linear in the
        logarithm of the scale, so this needs about half the passes of a bisection.
        """
        start = min(max(start, 2 * LEAST_SCALE), MOST_SCALE / 2)
        excess = self.excess(start)
        if self.is_close():
            return
        (low, above), (high, below) = self.bracket(start, excess)
        last_side = 0
        if above <= 0 or below > 0:
            return  # all scales in the range are on one side of the aim
        while len(self.tried) < MOST_PASSES and not self.is_close() and high > low * (1 + self.narrow):
            part = min(0.95, max(0.05, above / (above - below)))
            threshold_scale = low * (high / low) ** part
            excess = self.excess(threshold_scale)
            side = 1 if excess > 0 else -1
            # If the same end stays twice, its excess is halved. Otherwise it would stay until the end of the search.
            factor = 0.5 if side == last_side else 1.0
            if side > 0:
                low, above, below = threshold_scale, excess, below * factor
            else:
                high, below, above = threshold_scale, excess, above * factor
            last_side = side

    def bracket(self, start: float, excess: float) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return two (threshold scale, excess) around the aim, first the one above it.

        The steps away from `start` grow, so that a good start costs two passes.
        """
        step, threshold_scale, upwards = 1.02, start, excess > 0
        while (excess > 0) == upwards and LEAST_SCALE < threshold_scale < MOST_SCALE:
            before = threshold_scale, excess
            threshold_scale = threshold_scale * step if upwards else threshold_scale / step
            excess = self.excess(threshold_scale)
            step = min(step**2, 4)
        ends = before, (threshold_scale, excess)
        return ends if upwards else ends[::-1]
