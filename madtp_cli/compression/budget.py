"""The FLOPs budget: what was asked, whether it can be had, and the knob that meets it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from madtp_cli.errors import BudgetError, UsageError

#: A budget counts as met within 1 % of what was asked.
TOLERANCE = 0.01
#: The search stops this close under the target: a fifth of what it is allowed to miss by.
CLOSE_ENOUGH = 0.002
#: The search also stops where the knob is known to so small a share of itself: the cost jumps there.
NARROWEST = 1e-5
#: Forward passes over the calibration set at most.
MOST_PASSES = 24
#: Beyond these nothing, or everything but `min_keep`, is pruned.
LEAST_SCALE, MOST_SCALE = 1e-6, 1e6
_FORMS = "Write 0.2 or 20% for a share of the dense GFLOPs, or 26.5G for GFLOPs per sample."


@dataclass(frozen=True)
class Budget:
    """What a compressed model may cost: `share` of the dense model (0-1) and GFLOPs per sample."""

    requested: str
    share: float
    gflops: float
    dense: float

    def __str__(self) -> str:
        return f"budget {self.requested} = {self.gflops:.4g} of {self.dense:.4g} GFLOPs"

    def is_met(self, gflops: float) -> bool:
        return abs(gflops - self.gflops) <= TOLERANCE * self.gflops


@dataclass(frozen=True)
class Calibration:
    """A knob, the mean GFLOPs it gives on the calibration set, and all (knob, GFLOPs) that were tried."""

    threshold_scale: float
    gflops: float
    tried: tuple[tuple[float, float], ...]

    def slope(self) -> float:
        """By what power of the knob the cost falls near it: 4 where a knob 1 % higher costs 4 % less.

        In 1-30; 4 where too little was tried to tell.
        """
        below = [point for point in self.tried if point[0] < self.threshold_scale]
        above = [point for point in self.tried if point[0] > self.threshold_scale]
        near = [point for point in (*below[-1:], (self.threshold_scale, self.gflops), *above[:1]) if point[0] > 0]
        (first, dear), (last, cheap) = (near[0], near[-1]) if near else ((1.0, 1.0), (1.0, 1.0))
        if last <= first * 1.001 or cheap <= 0 or dear <= cheap:
            return 4.0
        return min(30.0, max(1.0, math.log(dear / cheap) / math.log(last / first)))


def parse(text: str) -> tuple[float, str]:
    """Read a budget: a number and its unit, "share" (0-1) or "gflops".

    >>> parse("20%"), parse("0.2"), parse("26.5G")
    ((0.2, 'share'), (0.2, 'share'), (26.5, 'gflops'))
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%|[gG])?\s*", text)
    if not match:
        raise UsageError(f"{text!r} is no budget. {_FORMS}")
    number, unit = float(match[1]), match[2] or ""
    if not math.isfinite(number):
        raise UsageError(f"A budget of {text.strip()} is beyond all numbers. {_FORMS}")
    if number == 0:
        raise UsageError(f"A budget of {text.strip()} leaves nothing to compute with. {_FORMS}")
    if unit in ("g", "G"):
        return number, "gflops"
    share = number / 100 if unit == "%" else number
    if share > 1 and not unit:
        raise UsageError(
            f"A bare budget above 1 has two readings: {number:g}G ({number:g} GFLOPs per sample) "
            f"or {number:g}% ({number / 100:g} of the dense GFLOPs). Write the one you mean."
        )
    if share > 1:
        raise UsageError(f"A budget of {text.strip()} is more than the dense model. {_FORMS}")
    return share, "share"


def resolve(text: str, dense: float) -> Budget:
    """The budget in both units, given the dense model's GFLOPs per sample."""
    number, unit = parse(text)
    share = number if unit == "share" else number / dense
    return Budget(text.strip(), share, share * dense, dense)


def check_reachable(budget: Budget, floor: float) -> None:
    """Raise BudgetError, naming the reachable range, unless floor <= budget <= dense (GFLOPs)."""
    if floor <= budget.gflops <= budget.dense * (1 + 1e-9):
        return
    raise BudgetError(
        f"Budget {budget.requested} = {budget.gflops:.4g} GFLOPs is out of reach: "
        f"this model can cost {floor:.4g} to {budget.dense:.4g} GFLOPs per sample.\n"
        f"Ask for --gflops-budget {math.ceil(floor / budget.dense * 1000) / 1000:g} to 1."
    )


def calibrate(
    measure: Callable[[float], float],
    budget: Budget,
    start: float = 1.0,
    close: float = CLOSE_ENOUGH,
    narrow: float = NARROWEST,
) -> Calibration:
    """Find the knob whose mean cost comes closest to the budget, from below where that meets it.

    Args:
        measure: Mean GFLOPs of the calibration samples at a knob; falls (nearly) as the knob
            rises, 0 is dense. Each call is one pass of forwards.
        budget: What is asked.
        start: First guess, e.g. the knob found before some more training.
        close: The search stops at a cost so close under the target, as a share of it.
        narrow: It also stops where the knob is known to such a share of itself.
    """
    if budget.share >= 1:
        return Calibration(0.0, budget.dense, ())
    tried: list[tuple[float, float]] = []

    def cost(threshold_scale: float) -> float:
        tried.append((threshold_scale, measure(threshold_scale)))
        return tried[-1][1]

    _search(cost, budget, start, tried, close, narrow)
    under = [point for point in tried if point[1] <= budget.gflops]
    met = [point for point in tried if budget.is_met(point[1])]
    # The cost can jump from too little to barely too much, or the knob's range can end above the target.
    best = [point for point in under if point in met] or met or under or tried
    # Of knobs that cost the same the least, which prunes no more than it must.
    threshold_scale, gflops = min(best, key=lambda point: (abs(point[1] - budget.gflops), point[0]))
    return Calibration(threshold_scale, gflops, tuple(sorted(tried)))


def _search(
    cost: Callable[[float], float],
    budget: Budget,
    start: float,
    tried: list[tuple[float, float]],
    close: float,
    narrow: float,
) -> None:
    """Try knobs until one is close: regula falsi (Illinois) on the knob's logarithm.

    A pass over the calibration set is the dear part, and near the target the cost is almost
    a line in log knob, so this needs about half the passes of a bisection.
    """
    aim = budget.gflops * (1 - close / 2)
    start = min(max(start, 2 * LEAST_SCALE), MOST_SCALE / 2)
    excess = cost(start) - aim
    if _is_close(tried, budget, close):
        return
    (low, above), (high, below) = _bracket(cost, aim, (start, excess))
    last_side = 0
    if above <= 0 or below > 0:
        return  # no knob in range lies on the other side of the aim
    while len(tried) < MOST_PASSES and not _is_close(tried, budget, close) and high > low * (1 + narrow):
        part = min(0.95, max(0.05, above / (above - below)))
        threshold_scale = low * (high / low) ** part
        excess = cost(threshold_scale) - aim
        side = 1 if excess > 0 else -1
        # An end that stays twice is pulled in, or it would stay for good.
        pull = 0.5 if side == last_side else 1.0
        if side > 0:
            low, above, below = threshold_scale, excess, below * pull
        else:
            high, below, above = threshold_scale, excess, above * pull
        last_side = side


def _bracket(
    cost: Callable[[float], float], aim: float, start: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Two knobs around the aim with their excess costs, the first above it.

    Found from `start`, a knob and its excess, by steps that grow, so that a fair guess costs two passes.
    """
    step, (threshold_scale, excess) = 1.02, start
    upwards = excess > 0
    while (excess > 0) == upwards and LEAST_SCALE < threshold_scale < MOST_SCALE:
        before, threshold_scale = (
            (threshold_scale, excess),
            threshold_scale * step if upwards else threshold_scale / step,
        )
        excess = cost(threshold_scale) - aim
        step = min(step**2, 4)
    ends = before, (threshold_scale, excess)
    return ends if upwards else ends[::-1]


def _is_close(tried: list[tuple[float, float]], budget: Budget, close: float) -> bool:
    return any(budget.gflops * (1 - close) <= gflops <= budget.gflops for _, gflops in tried)
