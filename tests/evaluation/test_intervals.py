"""95 % confidence intervals of qualities and changes."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.evaluation.intervals import (
    interval95,
    mean_interval95,
    paired_interval95,
    paired_mean_interval95,
    relative_interval95,
)

SINGLE = (interval95, mean_interval95)
PAIRED = (paired_interval95, paired_mean_interval95, relative_interval95)
SCORES = st.lists(st.tuples(st.floats(0.1, 1), st.floats(0, 1)), min_size=3, max_size=8)


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Wilson's interval computed from its closed form with z = 1.96.
    [(0, 10, 0.0, 27.75), (10, 10, 72.25, 100.0), (5, 10, 23.66, 76.34), (1800, 2000, 88.61, 91.24)],
)
def test_the_interval_of_a_share_is_wilsons(right, count, low, high):
    """The normal interval would have width zero at 0 and 100 percent."""
    assert interval95([1.0] * right + [0.0] * (count - right)) == pytest.approx((low, high), abs=0.01)


def test_the_interval_of_a_change_is_narrower_than_that_of_a_figure():
    """The same samples are scored twice, so only those that changed add variance."""
    before = [1.0] * 900 + [0.0] * 100
    after = [0.0] * 10 + [1.0] * 890 + [0.0] * 100
    low, high = paired_interval95(before, after)
    assert low < -1.0 < high < 0
    assert high - low < 1.4
    single = interval95(before)
    assert single[1] - single[0] > 3.5


def test_the_paired_interval_is_the_closed_form():
    """Three of ten samples get worse and one better: twelve samples, sum -2, sum of squares 5."""
    before, after = [1, 1, 1, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    half = 1.959964 * ((5 / 12 - (2 / 12) ** 2) / 12) ** 0.5
    expected = (100 * (-2 / 12 - half), 100 * (-2 / 12 + half))
    assert paired_interval95(before, after) == pytest.approx(expected)


def test_the_interval_without_changes_is_not_empty():
    """2,000 samples without a change: the interval is a tenth of a point to each side."""
    low, high = paired_interval95([1.0] * 2000, [1.0] * 2000)
    assert low == -high
    assert 0.09 < high < 0.11


def test_the_paired_interval_has_the_coverage_that_it_claims():
    """A change of -2 points on 500 samples, drawn 2,000 times."""
    rng = random.Random(0)
    covered = 0
    for _ in range(2000):
        draws = [rng.random() for _ in range(500)]
        before, after = [float(d > 0.03) for d in draws], [float(d > 0.05) for d in draws]
        low, high = paired_interval95(before, after)
        covered += low <= -2 <= high
    assert 0.93 < covered / 2000 < 0.99


def test_samples_must_be_paired():
    """The interval of different samples before and after has no meaning."""
    with pytest.raises(ValueError, match="shorter"):
        paired_interval95([1, 0, 1], [1, 0])


@given(SCORES)
def test_groups_of_one_sample_change_nothing(pairs):
    """Otherwise the same data would have two intervals."""
    before, after = zip(*pairs, strict=True)
    singles = range(len(pairs))
    assert interval95([1.0, 0.0, 1.0], singles[:3]) == pytest.approx(interval95([1.0, 0.0, 1.0]))
    assert mean_interval95(after, singles) == pytest.approx(mean_interval95(after))
    for paired in PAIRED:
        assert paired(before, after, singles) == pytest.approx(paired(before, after))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=8))
def test_repeated_samples_do_not_make_the_interval_narrower(pairs):
    """Each sample is there five times, in one group: the interval is as wide as for one."""
    before, after = ([float(score) for score in scores] for scores in zip(*pairs, strict=True))
    groups = [number for number in range(len(pairs)) for _ in range(5)]
    repeated_before, repeated_after = ([scores[number] for number in groups] for scores in (before, after))
    for single in SINGLE:
        assert single(repeated_after, groups) == pytest.approx(single(after))
    for paired in PAIRED:
        assert paired(repeated_before, repeated_after, groups) == pytest.approx(paired(before, after))


def test_groups_never_make_the_interval_of_a_share_narrower():
    """If nearly all groups have the same mean, or all samples are correct, the variance between groups is too small."""
    alternating, pairs = [1.0, 0.0] * 20 + [1.0, 1.0], [number // 2 for number in range(42)]
    assert interval95(alternating, pairs) == pytest.approx(interval95(alternating))
    assert interval95([1.0] * 42, pairs) == pytest.approx(interval95([1.0] * 21))


@pytest.mark.parametrize(
    ("samples", "quantile"),
    # Tables of Student's t: 1, 2, 3, 4, 9, 30 and 1000 degrees of freedom.
    [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776), (10, 2.262), (31, 2.042), (1001, 1.962)],
)
def test_the_interval_of_a_mean_is_student_s(samples, quantile):
    """With few samples the normal quantile would claim too much."""
    scores = [float(number) for number in range(samples)]
    mean = (samples - 1) / 2
    error = math.sqrt(sum((score - mean) ** 2 for score in scores) / (samples - 1) / samples)
    low, high = mean_interval95(scores)
    assert low + high == pytest.approx(2 * mean)
    assert (high - low) / 2 == pytest.approx(quantile * error, rel=2e-3)


def test_the_interval_of_equal_scores_is_not_empty():
    """As for shares: no change among 100 samples does not mean that no sample ever changes."""
    scores = [2.0, 0.5] * 50
    low, high = paired_mean_interval95(scores, scores)
    assert low == -high
    assert 0.01 < high < 0.02
    low, high = relative_interval95(scores, scores)
    assert low == -high
    assert 0.8 < high < 1.6


@pytest.mark.parametrize("scale", [1, 100])
def test_the_relative_change_has_no_unit(scale):
    """CIDEr-D is 0 to 10 in the paper and 100 times as much in tables."""
    before, after = [1.0, 2.0, 4.0, 5.0], [0.9, 2.1, 3.0, 4.8]
    scaled = relative_interval95([scale * score for score in before], [scale * score for score in after])
    assert scaled == pytest.approx(relative_interval95(before, after))
    assert sum(scaled) / 2 == pytest.approx(100 * (10.8 / 12 - 1))


def test_too_few_groups_have_an_infinite_interval():
    """One group has no variance, and a relative change needs a positive quality before."""
    assert mean_interval95([3.0]) == (-math.inf, math.inf)
    assert mean_interval95([3.0, 4.0], groups=["a", "a"]) == (-math.inf, math.inf)
    assert relative_interval95([0.0, 0.0], [1.0, 0.0]) == (-math.inf, math.inf)


def caption(rng: random.Random) -> tuple[float, float]:
    """Return a score with a distribution like CIDEr-D's, and the score after pruning, 5 percent lower on average."""
    before = rng.gammavariate(1.5, 0.8)
    return before, before if rng.random() < 0.5 else before * (0.9 + rng.gauss(0, 0.3))


def answer(rng: random.Random) -> tuple[float, float]:
    """Return a VQA score with a mean of 70 percent, and the score after pruning, 1.6 points lower on average."""
    before = rng.choice([0.0, 0.3, 0.6, 0.9, *[1.0] * 4, 1.0, 0.2])
    return before, before if rng.random() < 0.92 else rng.choice([0.0, 0.3, 0.6, 1.0, 0.5])


def sides(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return all scores before, and all scores after."""
    return [before for before, _ in pairs], [after for _, after in pairs]


def coverage(runs: int, interval, truth: float) -> float:
    """Return the share of the runs whose interval contains the true value."""
    bounds = [interval(random.Random(f"interval/{run}")) for run in range(runs)]
    return sum(low <= truth <= high for low, high in bounds) / runs


@pytest.mark.parametrize(
    ("interval", "truth"),
    [
        (lambda pairs: mean_interval95(sides(pairs)[0]), 1.2),
        (lambda pairs: paired_mean_interval95(*sides(pairs)), -0.06),
        (lambda pairs: relative_interval95(*sides(pairs)), -5),
    ],
)
def test_intervals_of_captions_hold_the_truth_as_often_as_they_say(interval, truth):
    """Skewed scores, half of which do not change; 150 samples, 600 times over."""
    assert 0.92 < coverage(600, lambda rng: interval([caption(rng) for _ in range(150)]), truth) < 0.98


@pytest.mark.parametrize(
    ("interval", "truth"),
    [
        (lambda pairs: interval95(sides(pairs)[0]), 70),
        (lambda pairs: paired_interval95(*sides(pairs)), 100 * 0.08 * (0.48 - 0.7)),
    ],
)
def test_intervals_of_soft_answers_are_wide_enough(interval, truth):
    """Scores between 0 and 1 vary less than scores of 0 or 1, so the interval can only be too wide."""
    assert 0.94 < coverage(600, lambda rng: interval([answer(rng) for _ in range(150)]), truth) <= 1


def images(rng: random.Random, count: int = 100) -> tuple[list[float], list[float], list[int]]:
    """Return scores of five captions per image before and after (means 80 and 74 percent), and the image of each.

    Most captions of a clear image are found, and few captions of other images. 80 % of the images are clear; 10 % of
    these are not clear after pruning.
    """
    before, after = [], []
    for _ in range(count):
        clear = rng.random() < 0.8
        still = clear and rng.random() < 0.9
        for draw in (rng.random() for _ in range(5)):
            before.append(float(draw < (0.95 if clear else 0.2)))
            after.append(float(draw < (0.95 if still else 0.2)))
    return before, after, [number for number in range(count) for _ in range(5)]


def test_captions_of_one_image_are_not_independent():
    """Without groups the intervals are too narrow; with groups by image they have the coverage that they claim."""

    def single(rng, grouped):
        before, _, groups = images(rng)
        return interval95(before, groups if grouped else None)

    def paired(rng, grouped):
        before, after, groups = images(rng)
        return paired_interval95(before, after, groups if grouped else None)

    for interval, truth in ((single, 80), (paired, -6)):
        assert 0.92 < coverage(400, lambda rng, interval=interval: interval(rng, True), truth) < 0.98
        assert coverage(400, lambda rng, interval=interval: interval(rng, False), truth) < 0.85
