"""The calibrated curve of a pruned checkpoint: what each threshold scale costs. So another budget needs no search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from madtp_cli.config import BudgetRequest
from madtp_cli.errors import BudgetError, UsageError
from madtp_cli.models.prunable import Prunable

#: A request may lie outside the curve by this share of itself.
BEYOND = 0.02
#: Points of a curve: (threshold scale, share of the dense GFLOPs), the scale rising and the share falling.
Curve = Sequence[Sequence[float]]


def curve_of(tried: Iterable[tuple[float, float]]) -> list[list[float]]:
    """Return the curve through measured (threshold scale, share) pairs, with the rare rises of the cost removed.

    >>> curve_of([(0.2, 0.4), (0.1, 0.8), (0.3, 0.41), (0.4, 0.2)])
    [[0.1, 0.8], [0.2, 0.4], [0.4, 0.2]]
    """
    curve: list[list[float]] = []
    for scale, share in sorted(set(tried)):
        if scale > 0 and share > 0 and (not curve or (scale > curve[-1][0] and share < curve[-1][1])):
            curve.append([scale, share])
    return curve


def scale_at(curve: Curve, share: float) -> float:
    """Return the threshold scale that costs a share of the dense GFLOPs, between the points of a curve.

    Both axes are logarithmic between two points. Beyond the ends the scale of the end is returned.

    >>> scale_at([[0.1, 0.8], [0.4, 0.2]], 0.4), scale_at([[0.1, 0.8], [0.4, 0.2]], 0.9)
    (0.2, 0.1)
    """
    above = [point for point in curve if point[1] >= share]
    below = [point for point in curve if point[1] < share]
    if not above or not below:
        return float(curve[0][0] if not above else curve[-1][0])
    (low, more), (high, less) = above[-1], below[0]
    part = math.log(more / share) / math.log(more / less)
    return round(low * (high / low) ** part, 12)


def set_budget(model: Prunable, request: BudgetRequest | None, source: object) -> None:
    """Set the threshold scale of a loaded model for another budget, without training or data.

    Args:
        model: A pruned model whose settings have a calibrated curve.
        request: The budget; None changes nothing.
        source: The checkpoint, for the message of an error.

    Raises:
        UsageError: The checkpoint is dense, or has no curve, or the request is a range.
        BudgetError: The budget is outside the curve.
    """
    if request is None:
        return
    if request.upper is not None:
        raise UsageError(f"--gflops-budget {request.text} is a range.\nGive one budget, such as {request.number:g}.")
    settings = model.pruning
    if settings is None or not settings.curve:
        what = "is not pruned" if settings is None else "has no calibrated curve"
        raise UsageError(
            f"{source} {what}, so --gflops-budget cannot be set.\n"
            "Compress it for a range first: madtp compress CHECKPOINT --gflops-budget 0.2..0.8"
        )
    share = request.number if request.unit == "share" else request.number / settings.dense_gflops
    most, least = settings.curve[0][1], settings.curve[-1][1]
    if not least * (1 - BEYOND) <= share <= most * (1 + BEYOND):
        raise BudgetError(
            f"{source} was calibrated for {least:.3f} to {most:.3f} of the dense GFLOPs, not for {request.text}.\n"
            "Give a budget in this range, or compress the dense checkpoint for a wider one: --gflops-budget 0.2..0.8"
        )
    model.attach(replace(settings, threshold_scale=scale_at(settings.curve, share)))
