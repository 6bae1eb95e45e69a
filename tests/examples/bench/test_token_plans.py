"""Token plans meet their budget, and a model keeps exactly the planned number of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.bench import token_plans, variants
from examples.bench.variants import Variant
from madtp_cli.evaluation import run, sample_costs
from tests import drawing
from tests.examples.bench.conftest import CPU, SHARES


def test_every_image_keeps_the_planned_number_of_tokens(model, batch) -> None:
    """All left images come first in the packed tensor, so a plan in another order would reach the wrong image."""
    left = np.random.default_rng(1).integers(2, 30, (3, 5, 2))
    left = np.sort(left, 0)[::-1]
    with torch.inference_mode():
        trace = Variant(model, "pruned", 0.5, [left])(**batch).trace
    assert np.array_equal(sample_costs.counts_of(model, trace)["vision"].left, left + 1)


def test_a_plan_that_is_not_used_is_an_error(model) -> None:
    """Otherwise the benchmark would time something else after a change of the pruning rule."""
    left = np.full((3, 5, 2), 4)
    with pytest.raises(RuntimeError, match="0 of 30 planned images"), token_plans.follow_plan(model, left):
        pass


@pytest.mark.parametrize("budget", [0.6, 0.4])
def test_a_plan_meets_the_budget_and_keeps_the_order_of_the_shares(model, batch, budget) -> None:
    """The cost is at most the budget and at most one token below it; an image with a smaller share keeps fewer."""
    dense = variants.dense_counts(model, batch, CPU)
    left = token_plans.plan(model, dense, SHARES, budget)
    cost = sample_costs.per_sample(model.config, token_plans.planned_counts(model, dense, left)).mean()
    share = cost / sample_costs.per_sample(model.config, dense).mean()
    assert 0.93 * budget < share <= budget
    first_block = left[0].ravel()
    assert first_block[0] > first_block[2] > first_block[1]
    assert np.array_equal(first_block[:3], first_block[3:6])
    assert (np.diff(left, axis=0) <= 0).all()


def test_a_block_that_does_not_prune_keeps_all_tokens(blip, batch) -> None:
    """A plan that prunes in such a block could not be followed."""
    every_second = drawing.attached(blip, 1.0, scales={"text": [0.0] * 3, "vision": [1.0, 0.0, 1.0]})
    dense = variants.dense_counts(every_second, batch, CPU)
    left = token_plans.plan(every_second, dense, SHARES, 0.6)
    assert np.array_equal(left[0], left[1])
    with torch.inference_mode():
        trace = Variant(every_second, "pruned", 0.6, [left])(**batch).trace
    assert np.array_equal(sample_costs.counts_of(every_second, trace)["vision"].left, left + 1)


def test_shares_are_interpolated_to_more_blocks() -> None:
    """Shares fall linearly between the blocks of the example, and from its input to its first block."""
    np.testing.assert_allclose(token_plans.at_depths(np.array([[0.6, 0.2]]), 4), [[0.8, 0.6, 0.4, 0.2]])


def test_padded_and_uniform_plans_and_their_ratios() -> None:
    """One block and two pairs with 1, 3, 5 and 7 prunable tokens; each image has [CLS] in addition."""
    left = np.array([[[1, 3], [5, 7]]])
    uniform = token_plans.uniform_plan(left)
    assert token_plans.padded_plan(left).ravel().tolist() == [7, 7, 7, 7]
    assert uniform.ravel().tolist() == [4, 4, 4, 4]
    # Nine prunable tokens enter. Attention executes 10 tokens per image, the feed-forward 8, or 2, 4, 6 and 8.
    before = np.full((2, 2), 9)
    assert token_plans.padding_ratios(before, [left]) == ((40 + 32) / (40 + 20), 32 / 20)
    both = token_plans.padding_ratios(before, [left, uniform])
    assert both == ((40 + 32 + 40 + 20) / (2 * (40 + 20)), (32 + 20) / (20 + 20))
    assert token_plans.token_statistics(left) == [(5.0, 2, 8, 5**0.5)]


def test_the_statistics_of_the_rule_are_measured_at_the_budget(model, batch) -> None:
    """They are compared with plans at the same cost; the model keeps the calibrated threshold scale."""
    statistics = token_plans.statistics_of_the_rule(model, batch, CPU, 0.6)
    counts = run.counted(model, [batch], CPU)
    dense = sample_costs.per_sample(model.config, variants.dense_counts(model, batch, CPU)).mean()
    assert 0.5 < sample_costs.per_sample(model.config, counts).mean() / dense <= 0.6
    assert statistics == token_plans.token_statistics(counts["vision"].left - 1)
