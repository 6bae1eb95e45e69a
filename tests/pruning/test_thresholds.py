"""Thresholds, and which tokens exceed them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from madtp_cli.pruning import segments, thresholds

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=4)
CPU = torch.device("cpu")


def _kept(score: list[float], threshold: float, min_keep: int = 1) -> list[int]:
    """Return the indices of the kept tokens of one sample."""
    mask = torch.ones(1, len(score), dtype=torch.bool)
    kept = thresholds.keep_above(torch.tensor([score]), torch.tensor([threshold]), mask, min_keep)
    return kept[0].nonzero().flatten().tolist()


def test_the_papers_threshold_is_the_least_mean_importance() -> None:
    """The atoms' means are 0.7 * 0.8 + 0.3 * 0.2 = 0.62 and 0.1 * 0.8 + 0.9 * 0.2 = 0.26; one token is its own mean."""
    attention = torch.tensor([[[0.7, 0.1], [0.3, 0.9]], [[1.0, 1.0], [0.0, 0.0]]])
    score = torch.tensor([[0.8, 0.2], [1.0, 0.0]])
    torch.testing.assert_close(thresholds.least_atom_mean(score, attention), torch.tensor([0.26, 1.0]))


def test_a_score_equal_to_the_threshold_is_pruned() -> None:
    """Otherwise all of many equal scores would be kept at a threshold scale of 1."""
    assert _kept([0.25, 0.25, 0.25, 0.5], threshold=0.25) == [3]


@pytest.mark.parametrize(
    ("min_keep", "kept"), [(0, []), (1, [3]), (2, [1, 3]), (3, [1, 2, 3]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
@pytest.mark.parametrize("threshold", [1e9, float("inf"), float("nan")])
def test_min_keep_holds_at_any_threshold(min_keep: int, kept: list[int], threshold: float) -> None:
    """The best tokens stay; an infinite threshold scale times an importance of zero is NaN."""
    assert _kept([0.05, 0.3, 0.12, 0.45, 0.08], threshold, min_keep) == kept


def _scores(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Return random scores and a mask; where the mask is false the scores are high."""
    mask = segments.real_rows(lengths, CPU)
    score = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(mask, score, 9.0), mask


@given(LENGTHS, st.integers(0, 10_000), st.integers(0, 3), st.floats(0, 1, width=32))
def test_a_sample_is_treated_as_if_it_were_alone(lengths: list[int], seed: int, min_keep: int, limit: float) -> None:
    """The released code keeps the largest count of the batch, so results depended on the other samples."""
    score, mask = _scores(lengths, seed)
    together = thresholds.keep_above(score, torch.full((len(lengths),), limit), mask, min_keep)
    assert not together[~mask].any()
    for sample, length in enumerate(lengths):
        assert together[sample, :length].nonzero().flatten().tolist() == _kept(
            score[sample, :length].tolist(), limit, min_keep
        )


@given(LENGTHS, st.integers(0, 10_000), st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5))
def test_fewer_tokens_are_kept_as_the_threshold_rises(lengths: list[int], seed: int, limits: list[float]) -> None:
    """The search for the threshold scale relies on it."""
    score, mask = _scores(lengths, seed)
    kept = [thresholds.keep_above(score, torch.full((len(lengths),), limit), mask, 1) for limit in sorted(limits)]
    for more, fewer in pairwise(kept):
        assert not (fewer & ~more).any()
