"""A budget is read, refused or met."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.compression import budget
from madtp_cli.compression.budget import Calibration
from madtp_cli.errors import BudgetError, UsageError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("0.2", (0.2, "share")),
        (" 0.2 ", (0.2, "share")),
        (".2", (0.2, "share")),
        ("20%", (0.2, "share")),
        ("20 %", (0.2, "share")),
        ("1", (1.0, "share")),
        ("100%", (1.0, "share")),
        ("2e-1", (0.2, "share")),
        ("26.5G", (26.5, "gflops")),
        ("26.5g", (26.5, "gflops")),
        ("0.9G", (0.9, "gflops")),
    ],
)
def test_a_budget_is_a_share_or_gflops(text, meaning) -> None:
    """As people write it on a command line."""
    assert budget.parse(text) == pytest.approx(meaning)


@pytest.mark.parametrize(
    "text",
    ["0", "0%", "0G", "0.0", "-1", "-20%", "", " ", "abc", "nan", "inf", "1e999", "0x1", "1,5", "20%G", "G", "20 GB"],
)
def test_what_is_no_budget_is_refused_with_the_forms_there_are(text) -> None:
    """Wrong usage, hence exit code 2, and the message says how to write it."""
    with pytest.raises(UsageError, match=r"0\.2 or 20%.*26\.5G") as refusal:
        budget.parse(text)
    assert refusal.value.exit_code == 2


def test_a_bare_number_above_one_is_refused_with_both_readings() -> None:
    """1.5 may be GFLOPs or percent; a guess would compress to the wrong one of them."""
    with pytest.raises(UsageError, match=r"1\.5G \(1\.5 GFLOPs per sample\) or 1\.5% \(0\.015 of the dense GFLOPs\)"):
        budget.parse("1.5")


def test_more_than_the_dense_model_is_refused() -> None:
    """150 % is no compression."""
    with pytest.raises(UsageError, match=r"150% is more than the dense model"):
        budget.parse("150%")


@pytest.mark.parametrize("text", ["0.2", "20%", "26.5G"])
def test_a_budget_is_told_in_both_units(text) -> None:
    """26.5 of 132.5 is 0.2, whichever was asked."""
    asked = budget.resolve(f" {text} ", dense=132.5)
    assert (asked.requested, asked.dense) == (text, 132.5)
    assert [asked.share, asked.gflops] == pytest.approx([0.2, 26.5])
    assert str(asked) == f"budget {text} = 26.5 of 132.5 GFLOPs"


@pytest.mark.parametrize(
    ("gflops", "met"), [(19.79, False), (19.81, True), (20.0, True), (20.19, True), (20.21, False)]
)
def test_a_budget_is_met_within_one_percent_of_the_request(gflops, met) -> None:
    """Of 20 that is 0.2 either way, not one percent of the dense 100."""
    assert budget.resolve("0.2", dense=100.0).is_met(gflops) is met


@pytest.mark.parametrize("text", ["0.1", "9.9G", "101G"])
def test_an_unreachable_budget_names_the_reachable_range(text) -> None:
    """Found before any training; a share rounded down to 0.123 would be refused again."""
    with pytest.raises(BudgetError, match=r"(?s)12\.34 to 100 GFLOPs.*--gflops-budget 0\.124 to 1") as refusal:
        budget.check_reachable(budget.resolve(text, dense=100.0), floor=12.34)
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize("text", ["12.34G", "0.124", "0.5", "1", "100G"])
def test_both_ends_of_the_range_are_reachable(text) -> None:
    """The range that the message names is true."""
    budget.check_reachable(budget.resolve(text, dense=100.0), floor=12.34)


def smooth(threshold_scale: float, middle: float, steepness: float, floor: float) -> float:
    """Share of the dense cost at a knob, like the real ones: from 1 to the floor, half way at `middle`."""
    if threshold_scale == 0:
        return 1.0
    return floor + (1 - floor) / (1 + math.exp(min(700.0, steepness * math.log(threshold_scale / middle))))


SHARES = st.floats(0.15, 0.95)
MIDDLES = st.floats(0.5, 4)
FLOORS = st.floats(0.02, 0.1)
STARTS = st.floats(0.1, 10)


@given(SHARES, MIDDLES, st.floats(1, 4), FLOORS, STARTS)
def test_a_smooth_cost_is_met_from_below(share, middle, steepness, floor, start) -> None:
    """Never above what was asked, within a hundredth of it, in at most sixteen passes."""
    asked = budget.resolve(str(share), dense=50.0)
    found = budget.calibrate(
        lambda threshold_scale: 50 * smooth(threshold_scale, middle, steepness, floor), asked, start
    )
    assert asked.is_met(found.gflops)
    assert found.gflops <= asked.gflops
    assert found.gflops == 50 * smooth(found.threshold_scale, middle, steepness, floor)
    assert len(found.tried) <= 16


@given(SHARES, MIDDLES, st.floats(20, 100), FLOORS, STARTS)
def test_a_steep_cost_is_met_from_below(share, middle, steepness, floor, start) -> None:
    """Like-minded samples fall all at once."""
    asked = budget.resolve(str(share), dense=50.0)
    found = budget.calibrate(
        lambda threshold_scale: 50 * smooth(threshold_scale, middle, steepness, floor), asked, start
    )
    assert asked.is_met(found.gflops)
    assert found.gflops <= asked.gflops
    assert len(found.tried) <= budget.MOST_PASSES


@given(SHARES, MIDDLES, st.floats(1, 4), FLOORS, STARTS, st.floats(100, 2000))
def test_a_cost_that_falls_only_nearly_is_met_from_below(share, middle, steepness, floor, start, ripple) -> None:
    """Scores renormalise from layer to layer, so the mean cost has small waves."""

    def cost(threshold_scale: float) -> float:
        return 50 * (smooth(threshold_scale, middle, steepness, floor) + 2e-4 * math.sin(ripple * threshold_scale))

    asked = budget.resolve(str(share), dense=50.0)
    found = budget.calibrate(cost, asked, start)
    assert asked.is_met(found.gflops)
    assert found.gflops <= asked.gflops
    assert len(found.tried) <= budget.MOST_PASSES


@given(SHARES, MIDDLES, st.floats(1, 4), st.floats(0.98, 1.02))
def test_a_good_start_saves_passes(share, middle, steepness, off) -> None:
    """Every few steps of the fine-tune the knob is found anew, from the last one."""
    asked = budget.resolve(str(share), dense=50.0)
    excess = (1 - 0.05) / (share - 0.05) - 1
    start = middle * excess ** (1 / steepness) * off
    found = budget.calibrate(
        lambda threshold_scale: 50 * smooth(threshold_scale, middle, steepness, 0.05), asked, start
    )
    assert asked.is_met(found.gflops)
    assert len(found.tried) <= 7


def test_a_start_that_is_close_enough_is_taken() -> None:
    """A pass over the validation samples is minutes of a full-size model."""
    asked = budget.resolve("0.5", dense=50.0)
    found = budget.calibrate(lambda threshold_scale: 50 * (1 - threshold_scale), asked, start=0.5004)
    assert (found.threshold_scale, len(found.tried)) == (0.5004, 1)


def test_a_rough_search_ends_sooner() -> None:
    """It only says where to look; still from below."""
    asked = budget.resolve("0.3", dense=50.0)
    rough, fine = (
        budget.calibrate(lambda threshold_scale: 50 * smooth(threshold_scale, 9, 2, 0.05), asked, close=c)
        for c in (0.05, 0.002)
    )
    assert 0.95 * asked.gflops <= rough.gflops <= asked.gflops
    assert len(rough.tried) < len(fine.tried)


def test_a_rough_search_is_content_where_the_cost_jumps() -> None:
    """Few samples have few costs; the knob of the jump is all that can be learned from them."""
    asked = budget.resolve("0.5", dense=50.0)
    rough, fine = (
        budget.calibrate(lambda threshold_scale: 50.0 if threshold_scale < 0.3 else 10.0, asked, narrow=n)
        for n in (0.02, 1e-7)
    )
    assert 0.3 <= rough.threshold_scale < 0.3 * 1.02
    assert len(rough.tried) < len(fine.tried) - 5


@pytest.mark.parametrize("start", [0.1, 1.0, 2.0, 30.0])
def test_a_step_over_the_budget_ends_below_it(start) -> None:
    """No knob gives a half; the search ends all the same, and the caller can tell that the budget was missed."""
    asked = budget.resolve("0.5", dense=10.0)
    found = budget.calibrate(lambda threshold_scale: 10.0 if threshold_scale < 2 else 1.0, asked, start)
    assert found.gflops == 1.0
    assert found.threshold_scale >= 2
    assert not asked.is_met(found.gflops)
    assert len(found.tried) <= budget.MOST_PASSES


@pytest.mark.parametrize(("before", "after", "taken"), [(5.01, 4.9, 5.01), (5.04, 4.96, 4.96), (5.2, 4.2, 4.2)])
def test_a_step_takes_the_side_that_meets_the_budget(before, after, taken) -> None:
    """Within a hundredth a budget is met from above, too, but only where it is not from below."""
    asked = budget.resolve("0.5", dense=10.0)
    costs = {True: before, False: after}
    found = budget.calibrate(
        lambda threshold_scale: (
            10.0 if threshold_scale < 1 else 1.0 if threshold_scale > 3 else costs[threshold_scale < 2]
        ),
        asked,
    )
    assert found.gflops == taken


@pytest.mark.parametrize("always", [10.0, 1.0])
def test_a_cost_that_never_moves_ends_the_search(always) -> None:
    """All above or all below: the nearest is taken."""
    found = budget.calibrate(lambda threshold_scale: always, budget.resolve("0.5", dense=10.0))
    assert found.gflops == always
    assert len(found.tried) <= budget.MOST_PASSES


@pytest.mark.parametrize("start", [0.0, budget.LEAST_SCALE, budget.MOST_SCALE, 10 * budget.MOST_SCALE])
def test_a_start_at_the_end_of_the_range_is_only_a_bad_guess(start) -> None:
    """An earlier search may have ended there."""
    asked = budget.resolve("0.5", dense=10.0)
    found = budget.calibrate(lambda threshold_scale: 10 * smooth(threshold_scale, 1.3, 2, 0.05), asked, start)
    assert asked.is_met(found.gflops)


def test_the_whole_budget_needs_no_pass() -> None:
    """Knob 0 is the dense model."""
    found = budget.calibrate(lambda threshold_scale: pytest.fail("a pass"), budget.resolve("100%", dense=10.0))
    assert (found.threshold_scale, found.gflops, found.tried) == (0.0, 10.0, ())


def test_what_was_tried_is_a_curve() -> None:
    """Saved with the result, by rising knob: from it other budgets can be guessed."""
    found = budget.calibrate(lambda threshold_scale: 10 / (1 + threshold_scale), budget.resolve("0.3", dense=10.0))
    threshold_scales = [threshold_scale for threshold_scale, _ in found.tried]
    assert threshold_scales == sorted(threshold_scales)
    assert (found.threshold_scale, found.gflops) in found.tried


@pytest.mark.parametrize("power", [2.0, 7.0])
def test_the_slope_is_the_power_by_which_the_cost_falls(power) -> None:
    """From the points nearest the knob; what was tried far away says nothing about here."""
    tried = tuple((threshold_scale, 10 / threshold_scale**power) for threshold_scale in (0.9, 1.0, 1.1))
    assert Calibration(1.0, 10.0, ((0.01, 11.0), *tried, (50.0, 0.1))).slope() == pytest.approx(power)
    assert Calibration(0.9, tried[0][1], tried).slope() == pytest.approx(power)
    assert Calibration(0.0, 10.0, ()).slope() == 4.0
