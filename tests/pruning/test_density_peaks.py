"""Who leads whom, how distinct one is from his leader, and where chains of leaders end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from madtp_cli.methods import madtp
from madtp_cli.pruning import density_peaks

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=4)


def _random(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Tokens and importance, some of it equal."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(sum(lengths), 3, generator=generator)
    return tokens, torch.randint(0, 4, (sum(lengths),), generator=generator) / 4


@given(LENGTHS, st.integers(0, 10_000))
def test_a_leader_is_the_most_alike_of_the_more_important(lengths: list[int], seed: int) -> None:
    """Written out with loops; of equals the earlier one is the more important."""
    tokens, importance = _random(lengths, seed)
    leader, distinct = density_peaks.nearest_more_important(tokens, importance, lengths)
    start = 0
    for length in lengths:
        own = range(start, start + length)
        for row in own:
            rank = (-importance[row].item(), row)
            above = [other for other in own if (-importance[other].item(), other) < rank]
            alike = [functional.cosine_similarity(tokens[row], tokens[other], 0).item() for other in above]
            if not above:
                assert (leader[row].item(), distinct[row].item()) == (row, 2.0)
                continue
            assert distinct[row].item() == pytest.approx(1 - max(alike), abs=1e-5)
            assert alike[above.index(int(leader[row]))] == pytest.approx(max(alike), abs=1e-5)
        start += length


@given(LENGTHS, st.integers(0, 10_000), st.integers(1, 4))
def test_blocks_of_any_size_find_the_same_leaders(lengths: list[int], seed: int, size: int) -> None:
    """A block's border hides no one and shows no one too early."""
    given_ones = _random(lengths, seed)
    whole = density_peaks.nearest_more_important(*given_ones, lengths)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(density_peaks, "AT_ONCE", size)
        for one, other in zip(density_peaks.nearest_more_important(*given_ones, lengths), whole, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "length",
    [1, density_peaks.AT_ONCE, density_peaks.AT_ONCE + 1, 4 * density_peaks.AT_ONCE, 5 * density_peaks.AT_ONCE - 1],
)
def test_what_is_compared_is_what_is_counted(length: int) -> None:
    """In multiply-adds, of which torch counts two FLOPs each."""
    tokens, importance = _random([length], 0)
    with FlopCounterMode(display=False) as counter:
        density_peaks.nearest_more_important(tokens, importance, [length])
    assert counter.get_total_flops() == 2 * tokens.shape[1] * madtp.comparisons(np.array([length]))[0]


@given(LENGTHS, st.integers(0, 10_000), st.data())
def test_everyone_ends_at_the_first_leader_who_stays(lengths: list[int], seed: int, data: st.DataObject) -> None:
    """However long the chain: followed one by one it ends at the same token."""
    leader, _ = density_peaks.nearest_more_important(*_random(lengths, seed), lengths)
    drawn = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(leader), max_size=len(leader))), dtype=torch.bool
    )
    stays = drawn | (leader == torch.arange(len(leader)))
    ends = density_peaks.resolve_targets(leader, stays, max(lengths))
    for row in range(len(leader)):
        end = row
        while not stays[end]:
            end = int(leader[end])
        assert ends[row] == end


@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 65])
def test_the_longest_chain_is_followed_to_its_end(length: int) -> None:
    """Each token led by the one before it."""
    leader = (torch.arange(length) - 1).clamp_min(0)
    assert not density_peaks.resolve_targets(leader, torch.arange(length) == 0, length).any()


def test_leaders_pass_no_gradient() -> None:
    """Who stays is a choice; what the choice is made of learns elsewhere."""
    tokens, importance = torch.randn(4, 3, requires_grad=True), torch.rand(4, requires_grad=True)
    _, distinct = density_peaks.nearest_more_important(tokens, importance, [4])
    assert not distinct.requires_grad


def test_wide_tokens_are_compared_by_a_part_of_their_numbers() -> None:
    """A quadratic product of all 768 numbers takes a tenth of a layer; what lies between those compared is not seen."""
    width, step = 2 * density_peaks.COMPARED, density_peaks.spacing(2 * density_peaks.COMPARED)
    tokens = torch.randn(5, width)
    other = tokens.clone()
    other[:, step - 1 :: step] = torch.randn(5, width // step)
    importance, last = torch.rand(5), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    for one, same in zip(
        density_peaks.nearest_more_important(tokens, importance, [5]),
        density_peaks.nearest_more_important(other, importance, [5]),
        strict=True,
    ):
        assert torch.equal(one, same)
    other[:, ::step] = torch.randn(5, width // step)
    assert not torch.equal(
        density_peaks.nearest_more_important(tokens, last, [5])[1],
        density_peaks.nearest_more_important(other, last, [5])[1],
    )
