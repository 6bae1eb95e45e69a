"""95 % confidence intervals of a quality and of its change.

`interval95` and `paired_interval95` are for scores in 0-1: correct or wrong, or in between (VQA accuracy).
`mean_interval95`, `paired_mean_interval95` and `relative_interval95` are for scores of any size (CIDEr-D). Samples that
share an image, such as five questions about it, are not independent. `groups` has the group of each sample; the
intervals then treat the groups as independent.

scipy has the quantiles of Student's t, but it is no dependency of this package; `_t95` is a known approximation.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist, median

#: Two-sided 95 % quantile of the normal distribution.
Z95 = 1.959964

Groups = Sequence[Hashable] | None


def interval95(scores: Sequence[float], groups: Groups = None) -> tuple[float, float]:
    """Return the interval of a mean of scores in 0-1, in percent (Wilson's interval, which stays within 0-100).

    It holds for scores of 0 or 1 and is slightly too wide for scores in between. With groups, the number of samples is
    the number of independent samples whose mean would vary as much (Kish's effective sample size), at most all; if the
    scores do not vary, it is the number of groups.

    >>> low, high = interval95([1, 1, 1, 0])
    >>> round(low, 1), round(high, 1)
    (30.1, 95.4)
    >>> low, high = interval95([1, 1, 1, 1, 1, 1, 0, 0], groups=[1, 1, 2, 2, 3, 3, 4, 4])
    >>> round(low, 1), round(high, 1)
    (30.1, 95.4)
    """
    mean = math.fsum(scores) / len(scores)
    weight = Z95**2 / (len(scores) if groups is None else _effective_samples(scores, mean, groups))
    centre = (mean + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (mean * (1 - mean) + weight / 4)) / (1 + weight)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def paired_interval95(before: Sequence[float], after: Sequence[float], groups: Groups = None) -> tuple[float, float]:
    """Return the interval of the change of a mean if the same samples were scored twice, in points.

    This is the normal interval of the differences after adding half a sample that became correct, half a sample that
    became wrong and one that did not change (Agresti and Min, Statistics in Medicine 2005). So the width is never
    zero, even if no sample changed. With groups, groups of mean size are added instead of samples.

    >>> low, high = paired_interval95([1.0] * 98, [1.0] * 98)
    >>> round(low, 2), round(high, 2)
    (-1.96, 1.96)
    """
    changes = _changes(before, after)
    added = len(changes) / len(_totals(changes, groups))
    count = len(changes) + 2 * added
    mean = math.fsum(changes) / count
    squares = _sum_of_squares([change - mean for change in changes], groups) + added**2 * (1 + 2 * mean**2)
    half = Z95 * math.sqrt(squares) / count
    return 100 * max(-1.0, mean - half), 100 * min(1.0, mean + half)


def mean_interval95(scores: Sequence[float], groups: Groups = None) -> tuple[float, float]:
    """Return the interval of a mean of scores of any size, in their unit: Student's t over the groups.

    The interval of a single group is infinite, because one group has no variance.

    >>> low, high = mean_interval95([1.0, 2.0, 3.0])
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """
    mean = math.fsum(scores) / len(scores)
    half = _half_width([score - mean for score in scores], groups)
    return mean - half, mean + half


def paired_mean_interval95(
    before: Sequence[float], after: Sequence[float], groups: Groups = None
) -> tuple[float, float]:
    """Return the interval of the change of a mean of scores of any size, in their unit.

    This is Student's t over the differences after adding a difference of one standard deviation of the scores before,
    for the same reason for which `paired_interval95` adds samples.

    >>> low, high = paired_mean_interval95([1.0, 2.0, 3.0, 6.0], [1.0, 1.5, 2.5, 5.0])
    >>> round(low, 2), round(high, 2)
    (-2.12, 1.12)
    """
    changes = _changes(before, after)
    mean = math.fsum(changes) / len(changes)
    half = _half_width([change - mean for change in changes], groups, added=_standard_deviation(before))
    return mean - half, mean + half


def relative_interval95(before: Sequence[float], after: Sequence[float], groups: Groups = None) -> tuple[float, float]:
    """Return the interval of the change of a mean in percent of the mean before, if samples were scored twice.

    The ratio of the means is linearised (delta method); otherwise it is computed as in `paired_mean_interval95`. The
    interval is infinite if the mean before is not positive.

    >>> low, high = relative_interval95([2.0] * 50 + [1.0] * 50, [1.9] * 50 + [0.95] * 50)
    >>> round(low, 2), round(high, 2)
    (-5.66, -4.34)
    """
    mean = math.fsum(before) / len(before)
    if mean <= 0:
        return -math.inf, math.inf
    ratio = 1 + math.fsum(_changes(before, after)) / len(before) / mean
    residuals = [(new - ratio * old) / mean for old, new in zip(before, after, strict=True)]
    half = _half_width(residuals, groups, added=_standard_deviation(before) / mean)
    return 100 * (ratio - 1 - half), 100 * (ratio - 1 + half)


def median_interval95(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median of measured times, without an assumption about their distribution.

    Its ends are measured values: the number of values below the median has a binomial distribution. Fewer than six
    values give their whole range, whose confidence is lower.

    >>> median_interval95([5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0])
    (2.0, 8.0)
    """
    ordered, count = sorted(values), len(values)
    outside = 0  # values left out at each end
    tail = 0.5**count
    while tail + math.comb(count, outside + 1) * 0.5**count <= 0.025 and 2 * (outside + 1) < count:
        outside += 1
        tail += math.comb(count, outside) * 0.5**count
    return ordered[outside], ordered[-1 - outside]


def ratio_interval95(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, float]:
    """Return the interval of a ratio of medians of times that were measured in pairs.

    It is that of the median of the pairs' ratios, widened to contain the ratio of the medians.

    >>> ratio_interval95([4.0] * 8, [2.0] * 8)
    (2.0, 2.0)
    """
    ratio = median(numerators) / median(denominators)
    low, high = median_interval95([one / other for one, other in zip(numerators, denominators, strict=True)])
    return min(low, ratio), max(high, ratio)


def at_confidence(value: float, interval: tuple[float, float], confidence: float) -> tuple[float, float]:
    """Return a 95 % interval at another confidence: each side is scaled as that of a normal distribution.

    >>> low, high = at_confidence(0.0, (-1.96, 3.92), 0.9)
    >>> round(low, 3), round(high, 3), at_confidence(2.0, (-math.inf, math.inf), 0.0)
    (-1.645, 3.29, (2.0, 2.0))
    """
    if confidence == 0:
        return value, value
    if confidence == 0.95:
        return interval
    factor = NormalDist().inv_cdf((1 + confidence) / 2) / Z95
    return value - factor * (value - interval[0]), value + factor * (interval[1] - value)


def _changes(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [new - old for old, new in zip(before, after, strict=True)]


def _totals(values: Sequence[float], groups: Groups) -> list[float]:
    """Return the sum of the values of each group; without groups each value is a group."""
    if groups is None:
        return list(values)
    totals: dict[Hashable, float] = {}
    for value, group in zip(values, groups, strict=True):
        totals[group] = totals.get(group, 0.0) + value
    return list(totals.values())


def _sum_of_squares(residuals: Sequence[float], groups: Groups) -> float:
    return math.fsum(total**2 for total in _totals(residuals, groups))


def _effective_samples(scores: Sequence[float], mean: float, groups: Groups) -> float:
    """Return the number of independent samples with scores 0 or 1 whose mean would vary as much."""
    squares = _sum_of_squares([score - mean for score in scores], groups)
    if squares == 0:
        return len(_totals(scores, groups))
    return min(float(len(scores)), mean * (1 - mean) * len(scores) ** 2 / squares)


def _half_width(residuals: Sequence[float], groups: Groups, added: float = 0.0) -> float:
    """Return half the width of the t interval of a mean; `added` is one more residual in each group."""
    count = len(_totals(residuals, groups))
    if count == 1:
        return math.inf
    squares = _sum_of_squares(residuals, groups) * count / (count - 1) + (added * len(residuals) / count) ** 2
    return _t95(count - 1) * math.sqrt(squares) / len(residuals)


def _standard_deviation(scores: Sequence[float]) -> float:
    mean = math.fsum(scores) / len(scores)
    return math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))


def _t95(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t (Abramowitz and Stegun 26.7.5, within 0.1 % from 3 on)."""
    if freedom < 3:
        return {1: 12.7062, 2: 4.3027}[freedom]
    z = Z95
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
