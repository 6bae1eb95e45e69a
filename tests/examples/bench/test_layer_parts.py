"""The profile by part of a layer."""

from __future__ import annotations

import inspect
import itertools
import sys
from typing import Any

import pytest
import torch
from transformers.models.blip.modeling_blip import BlipMLP

from examples.bench import layer_parts
from examples.bench.token_plans import PlannedSelection
from madtp_cli.execution import attention, grouped_attention, statistics
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.prunable_rows import PrunableRows
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.methods import BlockInputs, madtp
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.pruning import density_peaks, importance, mag, merging, segments, thresholds


def test_a_part_includes_the_time_of_what_it_calls() -> None:
    """The clock of this test moves by one at each event, until another part begins."""
    ticks = itertools.count()
    norm, linear = torch.nn.LayerNorm(3), torch.nn.Linear(3, 3)
    seconds = layer_parts.profiled(lambda: linear(norm(torch.ones(3))), lambda: float(next(ticks)))
    assert seconds["layer norms"] > 0
    assert seconds["projections"] > 0
    assert set(seconds) == {"other", "layer norms", "projections"}
    assert sys.getprofile() is None


@pytest.mark.parametrize(
    ("function", "caller", "part"),
    [
        (BlipMLP.forward, "other", "feed-forward"),
        (torch.nn.Linear.forward, "other", "projections"),
        (torch.nn.Linear.forward, "feed-forward", "feed-forward"),
        (attention.attend, "other model code", "attention"),
        (grouped_attention.attend_in_groups, "other model code", "attention"),
        (grouped_attention._group_statistics, "attention", "attention statistics"),
        (statistics.sampled_attention_stats, "attention", "attention statistics"),
        (importance.normalise, "bookkeeping", "attention statistics"),
        (segments.pad, "distances", "distances"),
        (PrunableRows.arrange, "dictionary", "dictionary"),
        (BlockPruner._dictionary_logits, "bookkeeping", "dictionary"),
        (mag.dictionary_attention, "merging", "dictionary"),
        (importance.dictionary_score, "merging", "dictionary"),
        (BlockInputs.token_values, "merging", "distances"),
        (density_peaks.nearest_more_important, "merging", "distances"),
        (density_peaks._most_similar_before, "distances", "distances"),
        (density_peaks.resolve_targets, "merging", "merging"),
        (madtp.keep, "bookkeeping", "merging"),
        (thresholds.keep_above, "merging", "merging"),
        (PlannedSelection.__call__, "merging", "merging"),
        (merging.means, "bookkeeping", "merging"),
        (BlockPruner.prune, "other model code", "bookkeeping"),
        (BlockPruner.prune_embedding, "other model code", "bookkeeping"),
        (PruningSettings.rule, "other model code", "bookkeeping"),
        (MadtpBlipForNLVR2.encode_images, "other", "other model code"),
    ],
)
def test_a_function_belongs_to_its_part(function: Any, caller: str, part: str) -> None:
    """The feed-forward includes its linear layers; shared functions belong to the part of their caller."""
    function = inspect.unwrap(function)
    assert layer_parts.part_of(f"{function.__module__}.{function.__qualname__}", caller) == part


def test_percentages_are_shares_of_the_dense_total() -> None:
    """So the figures of a part can be compared between columns."""
    dense, scored = {"attention": 3.0, "layer norms": 1.0}, {"attention": 3.0, "distances": 0.5}
    rows = layer_parts.table_rows({"dense": dense, "scored": scored})
    assert "| attention | 3.0 (75.0%) | 3.0 (75.0%) |" in rows
    assert "| pruning only | 0.0 (0.0%) | 0.5 (12.5%) |" in rows
