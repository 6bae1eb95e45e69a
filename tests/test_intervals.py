"""How sure a figure is."""

from __future__ import annotations

import random

import pytest

from madtp_cli.intervals import interval95, paired_interval95


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Wilson's interval worked out from its closed form with z = 1.96.
    [(0, 10, 0.0, 27.75), (10, 10, 72.25, 100.0), (5, 10, 23.66, 76.34), (1800, 2000, 88.61, 91.24)],
)
def test_the_interval_of_a_share_is_wilsons(right, count, low, high):
    """The plain normal interval would be empty at 0 and 100 percent."""
    assert interval95([1.0] * right + [0.0] * (count - right)) == pytest.approx((low, high), abs=0.01)


def test_a_change_is_surer_than_its_two_figures():
    """The same samples are scored twice: only those that changed count."""
    before = [1.0] * 900 + [0.0] * 100
    after = [0.0] * 10 + [1.0] * 890 + [0.0] * 100
    low, high = paired_interval95(before, after)
    assert low < -1.0 < high < 0
    assert high - low < 1.4
    single = interval95(before)
    assert single[1] - single[0] > 3.5


def test_the_paired_interval_is_the_closed_form():
    """Three worse, one better of ten: twelve samples, sum -2, squares 5."""
    before, after = [1, 1, 1, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]
    half = 1.959964 * ((5 / 12 - (2 / 12) ** 2) / 12) ** 0.5
    expected = (100 * (-2 / 12 - half), 100 * (-2 / 12 + half))
    assert paired_interval95(before, after) == pytest.approx(expected)


def test_no_change_is_not_certainty():
    """2,000 samples without a difference leave room for a tenth of a point."""
    low, high = paired_interval95([1.0] * 2000, [1.0] * 2000)
    assert low == -high
    assert 0.09 < high < 0.11


def test_the_paired_interval_holds_the_truth_as_often_as_it_says():
    """A change of -2 points on 500 samples, 2,000 times over."""
    rng = random.Random(0)
    held = 0
    for _ in range(2000):
        draws = [rng.random() for _ in range(500)]
        before, after = [float(d > 0.03) for d in draws], [float(d > 0.05) for d in draws]
        low, high = paired_interval95(before, after)
        held += low <= -2 <= high
    assert 0.93 < held / 2000 < 0.99


def test_samples_must_be_paired():
    """Different samples before and after would make a meaningless figure."""
    with pytest.raises(ValueError, match="shorter"):
        paired_interval95([1, 0, 1], [1, 0])
