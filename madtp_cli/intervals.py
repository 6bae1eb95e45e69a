"""How sure a figure is: 95 % intervals for a quality and for a change of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Two-sided 95 % quantile of the normal distribution.
Z95 = 1.959964


def interval95(scores: Sequence[float]) -> tuple[float, float]:
    """Interval of a mean of scores in 0-1, in percent (Wilson's, which never leaves 0-100).

    Exact in its meaning for right and wrong; a little too wide for scores in between.

    >>> low, high = interval95([1, 1, 1, 0])
    >>> round(low, 1), round(high, 1)
    (30.1, 95.4)
    """
    count = len(scores)
    mean, weight = math.fsum(scores) / count, Z95**2 / count
    centre = (mean + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (mean * (1 - mean) + weight / 4)) / (1 + weight)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def paired_interval95(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Interval of the change of a mean when the same samples were scored twice, in points.

    The normal interval of the differences, after adding half a sample that got better, half
    a sample that got worse and one that stayed (Agresti and Min, Statistics in Medicine
    2005): so the interval is never of width zero, even if no sample changed.

    >>> low, high = paired_interval95([1.0] * 98, [1.0] * 98)
    >>> round(low, 2), round(high, 2)
    (-1.96, 1.96)
    """
    changes = [new - old for old, new in zip(before, after, strict=True)]
    count = len(changes) + 2
    mean = math.fsum(changes) / count
    variance = (math.fsum(change**2 for change in changes) + 1) / count - mean**2
    half = Z95 * math.sqrt(variance / count)
    return 100 * max(-1.0, mean - half), 100 * min(1.0, mean + half)
