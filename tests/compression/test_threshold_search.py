"""The search for the threshold scale that meets a budget."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.compression import threshold_search
from madtp_cli.compression.budget import Budget, resolve
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.config import BudgetRequest


def target_of(request: str, dense: float) -> Budget:
    """Return the budget of a request for a model with this dense cost."""
    return resolve(BudgetRequest.parse(request), dense)


def smooth(scale: float, middle: float, steepness: float, floor: float) -> float:
    """Return a share of the dense cost like that of real models: from 1 to the floor, half of it at `middle`."""
    if scale == 0:
        return 1.0
    return floor + (1 - floor) / (1 + math.exp(min(700.0, steepness * math.log(scale / middle))))


SHARES = st.floats(0.15, 0.95)
MIDDLES = st.floats(0.5, 4)
FLOORS = st.floats(0.02, 0.1)
STARTS = st.floats(0.1, 10)


@given(SHARES, MIDDLES, st.floats(1, 4), FLOORS, STARTS)
def test_a_smooth_cost_is_met_from_below(share, middle, steepness, floor, start) -> None:
    """The cost is never above the budget and within 1 % of it, after at most sixteen passes."""
    target = target_of(str(share), 50.0)
    found = threshold_search.search(lambda scale: 50 * smooth(scale, middle, steepness, floor), target, start)
    assert target.is_met(found.gflops)
    assert found.gflops <= target.gflops
    assert found.gflops == 50 * smooth(found.threshold_scale, middle, steepness, floor)
    assert len(found.tried) <= 16


@given(SHARES, MIDDLES, st.floats(20, 100), FLOORS, STARTS)
def test_a_steep_cost_is_met_from_below(share, middle, steepness, floor, start) -> None:
    """Similar samples lose their tokens at the same threshold scale."""
    target = target_of(str(share), 50.0)
    found = threshold_search.search(lambda scale: 50 * smooth(scale, middle, steepness, floor), target, start)
    assert target.is_met(found.gflops)
    assert found.gflops <= target.gflops
    assert len(found.tried) <= threshold_search.MOST_PASSES


@given(SHARES, MIDDLES, st.floats(1, 4), FLOORS, STARTS, st.floats(100, 2000))
def test_a_cost_with_small_waves_is_met_from_below(share, middle, steepness, floor, start, ripple) -> None:
    """Scores are normalised again in each block, so the mean cost rises a little in places."""

    def cost(scale: float) -> float:
        return 50 * (smooth(scale, middle, steepness, floor) + 2e-4 * math.sin(ripple * scale))

    target = target_of(str(share), 50.0)
    found = threshold_search.search(cost, target, start)
    assert target.is_met(found.gflops)
    assert found.gflops <= target.gflops
    assert len(found.tried) <= threshold_search.MOST_PASSES


@given(SHARES, MIDDLES, st.floats(1, 4), st.floats(0.98, 1.02))
def test_a_good_start_saves_passes(share, middle, steepness, off) -> None:
    """The search after a fine-tune starts at the scale of the search before it."""
    target = target_of(str(share), 50.0)
    excess = (1 - 0.05) / (share - 0.05) - 1
    start = middle * excess ** (1 / steepness) * off
    found = threshold_search.search(lambda scale: 50 * smooth(scale, middle, steepness, 0.05), target, start)
    assert target.is_met(found.gflops)
    assert len(found.tried) <= 7


def test_a_start_that_is_close_enough_is_taken() -> None:
    """A pass over the validation samples takes minutes with a full-size model."""
    target = target_of("0.5", 50.0)
    found = threshold_search.search(lambda scale: 50 * (1 - scale), target, start=0.5004)
    assert (found.threshold_scale, len(found.tried)) == (0.5004, 1)


def test_a_rough_search_ends_sooner() -> None:
    """It finds the range for the next search; its cost is also below the budget."""
    target = target_of("0.3", 50.0)
    rough, fine = (
        threshold_search.search(lambda scale: 50 * smooth(scale, 9, 2, 0.05), target, close=c) for c in (0.05, 0.002)
    )
    assert 0.95 * target.gflops <= rough.gflops <= target.gflops
    assert len(rough.tried) < len(fine.tried)


def test_a_rough_search_ends_where_the_cost_jumps() -> None:
    """Few samples have few different costs, so the search can only find the scale of the jump."""
    target = target_of("0.5", 50.0)
    rough, fine = (
        threshold_search.search(lambda scale: 50.0 if scale < 0.3 else 10.0, target, narrow=n) for n in (0.02, 1e-7)
    )
    assert 0.3 <= rough.threshold_scale < 0.3 * 1.02
    assert len(rough.tried) < len(fine.tried) - 5


@pytest.mark.parametrize("start", [0.1, 1.0, 2.0, 30.0])
def test_a_jump_across_the_budget_ends_below_it(start) -> None:
    """No scale costs a half. The search ends, and the caller sees that the budget was missed."""
    target = target_of("0.5", 10.0)
    found = threshold_search.search(lambda scale: 10.0 if scale < 2 else 1.0, target, start)
    assert found.gflops == 1.0
    assert found.threshold_scale >= 2
    assert not target.is_met(found.gflops)
    assert len(found.tried) <= threshold_search.MOST_PASSES


@pytest.mark.parametrize(("before", "after", "taken"), [(5.01, 4.9, 5.01), (5.04, 4.96, 4.96), (5.2, 4.2, 4.2)])
def test_at_a_jump_the_side_that_meets_the_budget_is_taken(before, after, taken) -> None:
    """A cost above the budget, but within 1 %, is taken only if the cost below does not meet the budget."""
    target = target_of("0.5", 10.0)
    costs = {True: before, False: after}
    found = threshold_search.search(
        lambda scale: 10.0 if scale < 1 else 1.0 if scale > 3 else costs[scale < 2],
        target,
    )
    assert found.gflops == taken


@pytest.mark.parametrize("always", [10.0, 1.0])
def test_a_constant_cost_ends_the_search(always) -> None:
    """All scales are on one side of the budget, so the nearest cost is taken."""
    found = threshold_search.search(lambda scale: always, target_of("0.5", 10.0))
    assert found.gflops == always
    assert len(found.tried) <= threshold_search.MOST_PASSES


@pytest.mark.parametrize(
    "start", [0.0, threshold_search.LEAST_SCALE, threshold_search.MOST_SCALE, 10 * threshold_search.MOST_SCALE]
)
def test_a_start_at_the_end_of_the_range_is_only_a_bad_guess(start) -> None:
    """An earlier search may have ended there."""
    target = target_of("0.5", 10.0)
    found = threshold_search.search(lambda scale: 10 * smooth(scale, 1.3, 2, 0.05), target, start)
    assert target.is_met(found.gflops)


def test_the_whole_budget_needs_no_pass() -> None:
    """Threshold scale 0 is the dense model."""
    found = threshold_search.search(lambda scale: pytest.fail("a pass"), target_of("100%", 10.0))
    assert (found.threshold_scale, found.gflops, found.tried) == (0.0, 10.0, ())


def test_the_tried_scales_are_sorted_and_have_the_result() -> None:
    """The report has them as a curve, from which the scale of another budget can be estimated."""
    found = threshold_search.search(lambda scale: 10 / (1 + scale), target_of("0.3", 10.0))
    scales = [scale for scale, _ in found.tried]
    assert scales == sorted(scales)
    assert (found.threshold_scale, found.gflops) in found.tried


@pytest.mark.parametrize("power", [2.0, 7.0])
def test_the_slope_is_the_power_by_which_the_cost_falls(power) -> None:
    """It is computed from the scales nearest to the result."""
    tried = tuple((scale, 10 / scale**power) for scale in (0.9, 1.0, 1.1))
    assert Calibration(1.0, 10.0, ((0.01, 11.0), *tried, (50.0, 0.1))).slope() == pytest.approx(power)
    assert Calibration(0.9, tried[0][1], tried).slope() == pytest.approx(power)
    assert Calibration(0.0, 10.0, ()).slope() == 4.0
