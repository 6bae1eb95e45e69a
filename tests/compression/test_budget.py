"""A budget in both units, and whether it can be reached and is met."""

from __future__ import annotations

import pytest

from madtp_cli.compression import budget
from madtp_cli.config import BudgetRequest
from madtp_cli.errors import BudgetError


@pytest.mark.parametrize("text", ["0.2", "20%", "26.5G"])
def test_a_budget_is_given_in_both_units(text) -> None:
    """26.5 of 132.5 GFLOPs is 0.2, whichever was requested."""
    target = budget.resolve(BudgetRequest.parse(f" {text} "), dense=132.5)
    assert (target.requested, target.dense) == (text, 132.5)
    assert [target.share, target.gflops] == pytest.approx([0.2, 26.5])
    assert str(target) == f"budget {text} = 26.5 of 132.5 GFLOPs"


@pytest.mark.parametrize(
    ("gflops", "met"), [(19.79, False), (19.81, True), (20.0, True), (20.19, True), (20.21, False)]
)
def test_a_budget_is_met_within_one_percent_of_itself(gflops, met) -> None:
    """One percent of 20 is 0.2. One percent of the dense 100 would be 1."""
    assert budget.resolve(BudgetRequest.parse("0.2"), dense=100.0).is_met(gflops) is met


@pytest.mark.parametrize("text", ["0.1", "9.9G", "101G"])
def test_the_message_about_an_unreachable_budget_has_the_reachable_range(text) -> None:
    """The share is rounded up: 0.123 would be refused again."""
    with pytest.raises(BudgetError, match=r"(?s)12\.34 to 100 GFLOPs.*--gflops-budget 0\.124 to 1") as refusal:
        budget.check_reachable(budget.resolve(BudgetRequest.parse(text), dense=100.0), floor=12.34)
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize("text", ["12.34G", "0.124", "0.5", "1", "100G"])
def test_both_ends_of_the_range_are_reachable(text) -> None:
    """The range in the message is correct."""
    budget.check_reachable(budget.resolve(BudgetRequest.parse(text), dense=100.0), floor=12.34)
