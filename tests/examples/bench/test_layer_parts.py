"""The profile by part of a layer."""

from __future__ import annotations

import itertools
import sys

import pytest
import torch

from examples.bench import layer_parts


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
    ("name", "caller", "part"),
    [
        ("transformers.models.blip.modeling_blip.BlipMLP.forward", "other", "feed-forward"),
        ("torch.nn.modules.linear.Linear.forward", "other", "projections"),
        ("torch.nn.modules.linear.Linear.forward", "feed-forward", "feed-forward"),
        ("madtp_cli.execution.attention.attend", "other model code", "attention"),
        ("madtp_cli.execution.grouped_attention.attended", "other model code", "attention"),
        ("madtp_cli.execution.grouped_attention._looked", "attention", "attention statistics"),
        ("madtp_cli.execution.statistics.sampled_attention_stats", "attention", "attention statistics"),
        ("madtp_cli.pruning.segments.pad", "distances", "distances"),
        ("madtp_cli.pruning.density_peaks.nearest_more_important", "merging", "distances"),
    ],
)
def test_a_function_belongs_to_its_part(name, caller, part) -> None:
    """The feed-forward includes its linear layers; shared functions belong to the part of their caller."""
    assert layer_parts.part_of(name, caller) == part


def test_percentages_are_shares_of_the_dense_total() -> None:
    """So the figures of a part can be compared between columns."""
    dense, scored = {"attention": 3.0, "layer norms": 1.0}, {"attention": 3.0, "distances": 0.5}
    rows = layer_parts.table_rows({"dense": dense, "scored": scored})
    assert "| attention | 3.0 (75.0%) | 3.0 (75.0%) |" in rows
    assert "| pruning only | 0.0 (0.0%) | 0.5 (12.5%) |" in rows
