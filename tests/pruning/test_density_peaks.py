"""Nearest more important tokens, distinctness, and where pruned tokens go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from madtp_cli.pruning import density_peaks, segments

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=4)
CPU = torch.device("cpu")


def _random(lengths: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, importance with equal values, and a mask; cells without a token hold large values."""
    generator = torch.Generator().manual_seed(seed)
    mask = segments.real_rows(lengths, CPU)
    tokens = torch.randn(*mask.shape, 3, generator=generator)
    importance = torch.randint(0, 4, mask.shape, generator=generator) / 4
    return tokens, torch.where(mask, importance, 9.0), mask


@pytest.mark.parametrize("search", [density_peaks.nearest_more_important, density_peaks.compare_all_pairs])
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 10_000))
def test_it_is_the_most_similar_of_the_more_important_tokens(search, lengths: list[int], seed: int) -> None:
    """The definition, written with loops; among equals the earlier one is more important."""
    tokens, importance, mask = _random(lengths, seed)
    nearest, distinctness = search(tokens, importance, mask)
    for sample, length in enumerate(lengths):
        for own in range(length):
            rank = (-importance[sample, own].item(), own)
            better = [other for other in range(length) if (-importance[sample, other].item(), other) < rank]
            cosines = [
                functional.cosine_similarity(tokens[sample, own], tokens[sample, other], 0).item() for other in better
            ]
            if not better:
                assert (nearest[sample, own].item(), distinctness[sample, own].item()) == (own, 2.0)
                assert density_peaks.is_most_important(nearest, mask)[sample, own]
                continue
            assert distinctness[sample, own].item() == pytest.approx(1 - max(cosines), abs=1e-5)
            assert cosines[better.index(int(nearest[sample, own]))] == pytest.approx(max(cosines), abs=1e-5)
        assert density_peaks.is_most_important(nearest, mask)[sample].sum() == (length > 0)


@given(LENGTHS, st.integers(0, 10_000), st.integers(1, 4))
def test_the_block_size_changes_nothing(lengths: list[int], seed: int, size: int) -> None:
    """A more important token may be in the same block or in an earlier one."""
    arguments = _random(lengths, seed)
    mask = arguments[2]
    whole = density_peaks.nearest_more_important(*arguments)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(density_peaks, "AT_ONCE", size)
        for one, other in zip(density_peaks.nearest_more_important(*arguments), whole, strict=True):
            torch.testing.assert_close(one[mask], other[mask])


@pytest.mark.parametrize(
    "length",
    [1, density_peaks.AT_ONCE, density_peaks.AT_ONCE + 1, 4 * density_peaks.AT_ONCE, 5 * density_peaks.AT_ONCE - 1],
)
def test_the_cost_counts_what_is_compared(length: int) -> None:
    """In multiply-adds; torch counts two FLOPs for each."""
    tokens, importance, mask = _random([length], 0)
    with FlopCounterMode(display=False) as counter:
        density_peaks.nearest_more_important(tokens, importance, mask)
    assert counter.get_total_flops() == 2 * tokens.shape[2] * density_peaks.comparisons(np.array([length]))[0]


@given(LENGTHS, st.integers(0, 10_000), st.data())
def test_a_token_ends_at_the_first_kept_token_of_its_chain(lengths: list[int], seed: int, data: st.DataObject) -> None:
    """Following the chain step by step ends at the same token."""
    tokens, importance, mask = _random(lengths, seed)
    nearest, _ = density_peaks.nearest_more_important(tokens, importance, mask)
    number = mask.numel()
    drawn = torch.tensor(data.draw(st.lists(st.booleans(), min_size=number, max_size=number)), dtype=torch.bool)
    kept = drawn.view(mask.shape) | density_peaks.is_most_important(nearest, mask)
    ends = density_peaks.resolve_targets(nearest, kept, max(lengths))
    for sample, length in enumerate(lengths):
        for own in range(length):
            end = own
            while not kept[sample, end]:
                end = int(nearest[sample, end])
            assert ends[sample, own] == end


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 65])
def test_the_longest_chain_is_followed_to_its_end(length: int) -> None:
    """Here the nearest more important token of each token is the one before it."""
    nearest = (torch.arange(length) - 1).clamp_min(0)[None]
    assert not density_peaks.resolve_targets(nearest, torch.arange(length)[None] == 0, length).any()


@pytest.mark.parametrize("search", [density_peaks.nearest_more_important, density_peaks.compare_all_pairs])
def test_the_comparison_passes_no_gradient(search) -> None:
    """Which tokens stay is a choice; the weights of the merged tokens pass the gradient."""
    tokens, mask = torch.randn(1, 4, 3, requires_grad=True), torch.ones(1, 4, dtype=torch.bool)
    _, distinctness = search(tokens, torch.rand(1, 4), mask)
    assert not distinctness.requires_grad
