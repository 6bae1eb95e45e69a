"""Token plans meet their budget, and a model keeps exactly the planned number of tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from examples.bench import token_plans, variants
from examples.bench.cases import BLIP
from examples.bench.variants import Variant
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.compute import Batch, inputs_of
from tests import drawing
from tests.examples.bench.conftest import CPU, SHARES


def test_every_image_keeps_the_planned_number_of_tokens(model, batch) -> None:
    """All left images come first in the packed tensor, so a plan in another order would reach the wrong image."""
    left = np.random.default_rng(1).integers(2, 30, (4, 5, 2))
    left = np.sort(left, 0)[::-1]
    check_followed(model, batch, left)


def check_followed(model: Any, batch: Batch, left: np.ndarray) -> None:
    """Check that a forward pass has the planned tokens at each stage, and the planned cost."""
    with torch.inference_mode():
        counts = sample_costs.counts_of(model, Variant(model, "pruned", 0.5, [left])(**batch).trace)
    planned = token_plans.planned_counts(model, variants.dense_counts(model, batch, CPU), left)
    assert np.array_equal(token_plans.stages(counts["vision"]), left)
    for name, expected in vars(planned["vision"]).items():
        assert np.array_equal(getattr(counts["vision"], name), expected), name
    costs = [sample_costs.per_sample(model.config, tokens) for tokens in (counts, planned)]
    assert costs[0].tolist() == costs[1].tolist()


@pytest.mark.parametrize("embedding_scale", [None, 0.0])
def test_a_plan_for_the_default_preset_is_followed(small_blip, embedding_scale) -> None:
    """The preset of `madtp` prunes before the first block; without that, all tokens are left there."""
    model = variants.build_model(BLIP)
    assert model.pruning is not None
    assert model.pruning.embedding_scale > 0
    if embedding_scale is not None:
        model.attach(replace(model.pruning, embedding_scale=embedding_scale))
    batch = variants.scene_batch(model, 3)
    dense = variants.dense_counts(model, batch, CPU)
    left = token_plans.plan(model, dense, SHARES, 0.7)
    everything = token_plans.stages(dense["vision"])
    assert (left[0] < everything[0]).any() == (embedding_scale is None)
    assert (left[-1] < left[0]).any()
    check_followed(model, batch, left)


def test_clip_follows_a_plan(attached_clip, captioned, collate) -> None:
    """An image-text pair of CLIP has one image."""
    scales = {"vision": [1.0, 0.0, 1.0], "text": [0.0] * 4}
    clip, batch = attached_clip("madtp", 1.0, scales=scales), inputs_of(collate(captioned))
    dense = variants.dense_counts(clip, batch, CPU)
    left = token_plans.plan(clip, dense, SHARES, 0.6)
    assert (left[0] < token_plans.stages(dense["vision"])[0]).any()
    check_followed(clip, batch, left)


def test_a_plan_that_is_not_used_is_an_error(model) -> None:
    """Otherwise the benchmark would time something else after a change of the pruning rule."""
    left = np.full((4, 5, 2), 4)
    with pytest.raises(RuntimeError, match="0 of 40 planned images"), token_plans.follow_plan(model, left):
        pass


@pytest.mark.parametrize("budget", [0.6, 0.4])
def test_a_plan_meets_the_budget_and_keeps_the_order_of_the_shares(model, batch, budget) -> None:
    """The cost is at most the budget and at most one token below it; an image with a smaller share keeps fewer."""
    dense = variants.dense_counts(model, batch, CPU)
    left = token_plans.plan(model, dense, SHARES, budget)
    cost = sample_costs.per_sample(model.config, token_plans.planned_counts(model, dense, left)).mean()
    share = cost / sample_costs.per_sample(model.config, dense).mean()
    assert 0.93 * budget < share <= budget
    for stage in left[:2]:
        first, second, third = stage.ravel()[:3]
        assert first > third > second
        assert np.array_equal(stage.ravel()[:3], stage.ravel()[3:6])
    assert (np.diff(left, axis=0) <= 0).all()


def test_a_block_that_does_not_prune_keeps_all_tokens(blip, batch) -> None:
    """A plan that prunes in such a block could not be followed."""
    every_second = drawing.attached(blip, 1.0, scales={"text": [0.0] * 3, "vision": [1.0, 0.0, 1.0]})
    dense = variants.dense_counts(every_second, batch, CPU)
    left = token_plans.plan(every_second, dense, SHARES, 0.6)
    assert np.array_equal(left[1], left[2])
    assert not np.array_equal(left[0], left[1])
    check_followed(every_second, batch, left)


def test_shares_are_interpolated_to_more_blocks() -> None:
    """Shares fall linearly between the blocks of the example, and from before its first block to after it."""
    np.testing.assert_allclose(token_plans.at_depths(np.array([[0.9, 0.6, 0.2]]), 4), [[0.9, 0.75, 0.6, 0.4, 0.2]])


def test_padded_and_uniform_plans_and_their_ratios() -> None:
    """One block and two pairs, with 9, 9, 9 and 7 prunable tokens before it and 1, 3, 5 and 7 after; [CLS] is extra."""
    before = np.array([[9, 9], [9, 7]])
    left = np.array([before, [[1, 3], [5, 7]]])
    uniform = token_plans.uniform_plan(left)
    assert token_plans.padded_plan(left).ravel().tolist() == [9, 9, 9, 9, 7, 7, 7, 7]
    assert uniform.ravel().tolist() == [8, 8, 8, 8, 4, 4, 4, 4]
    # Attention executes 10, 10, 10 and 8 tokens, the feed-forward 2, 4, 6 and 8; padded 10 and 8 per image.
    assert token_plans.padding_ratios([left]) == ((40 + 32) / (38 + 20), 32 / 20)
    both = token_plans.padding_ratios([left, uniform])
    assert both == ((40 + 32 + 36 + 20) / (38 + 20 + 36 + 20), (32 + 20) / (20 + 20))
    assert token_plans.token_statistics(left) == [(9.5, 8, 10, 0.75**0.5), (5.0, 2, 8, 5**0.5)]


def test_the_statistics_of_the_rule_are_measured_at_the_budget(model, batch) -> None:
    """They are compared with plans at the same cost; the model keeps the calibrated threshold scale."""
    statistics = token_plans.statistics_of_the_rule(model, batch, CPU, 0.6)
    counts = run.counted(model, [batch], CPU)
    dense = sample_costs.per_sample(model.config, variants.dense_counts(model, batch, CPU)).mean()
    assert 0.5 < sample_costs.per_sample(model.config, counts).mean() / dense <= 0.6
    assert statistics == token_plans.token_statistics(token_plans.stages(counts["vision"]))
    assert statistics[0][0] < 37
