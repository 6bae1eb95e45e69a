"""The paper's rule with a budget knob, and ours."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli import methods
from madtp_cli.errors import UsageError
from madtp_cli.methods import BlockInputs, Method, PruneDecision, Rule, madtp, madtp_paper
from madtp_cli.pruning import merging
from madtp_cli.pruning.importance import normalise

BOTH = [madtp, madtp_paper]
LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=4)


def attended(lengths: list[int], seed: int) -> BlockInputs:
    """Random tokens of width 3, in reverse among as many others, against 4 atoms."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    return BlockInputs(
        tokens=torch.randn(2 * total, 3, generator=generator),
        rows=torch.arange(2 * total - 1, -1, -2),
        lengths=lengths,
        class_attention=normalise(torch.rand(total, generator=generator), lengths),
        self_attention=normalise(torch.rand(total, generator=generator), lengths),
        logits=2 * torch.randn(total, 4, generator=generator),
    )


def _tensors(given_: BlockInputs) -> list[torch.Tensor]:
    return [given_.tokens[given_.rows], given_.class_attention, given_.self_attention, given_.logits]


def _made(kept: PruneDecision, given_: BlockInputs) -> torch.Tensor:
    return merging.means(given_.tokens[given_.rows], kept.places, kept.shares, sum(kept.lengths))


def test_importance_is_the_mean_of_three_scores() -> None:
    """By hand: an indifferent dictionary gives each of four tokens 1/4, so importance is 0.45, 0.8/3, 0.4/3, 0.15
    and the threshold at knob 1 its mean, 1/4; the last two merge to (0.4/3 * 4 + 0.15 * 8) / (0.4/3 + 0.15)."""
    given_ = BlockInputs(
        tokens=torch.tensor([[1.0], [2.0], [4.0], [8.0]]),
        rows=torch.arange(4),
        lengths=[4],
        class_attention=torch.tensor([0.7, 0.1, 0.1, 0.1]),
        self_attention=torch.tensor([0.4, 0.45, 0.05, 0.1]),
        logits=torch.zeros(4, 5),
    )
    kept = madtp_paper.keep(given_, Rule(threshold_scale=1.0))
    assert kept.positions.tolist() == [0, 1, -1]
    torch.testing.assert_close(_made(kept, given_), torch.tensor([[1.0], [2.0], [(1.6 / 3 + 1.2) / (0.4 / 3 + 0.15)]]))


@pytest.mark.parametrize(("threshold_scale", "positions"), [(0.15, [0, 1, 2]), (0.6, [0, 2]), (0.7, [0])])
def test_what_counts_is_the_root_of_importance_times_distinctness(threshold_scale: float, positions: list[int]) -> None:
    """By hand: an indifferent dictionary gives 1/4, so importance is (1.25, 0.85, 0.55, 0.35) / 3. Token 1 points
    nearly where 0 does (cosine 0.8), 2 elsewhere, 3 where 2 does: the products with
    the roots are 1.291, 0.106, 0.428 and 0, their quadratic mean 0.682. The more important token 1 goes before 2."""
    given_ = BlockInputs(
        tokens=torch.tensor([[2.0, 0, 0], [0.8, 0.6, 0], [0, 0, 1.0], [0, 0, 3.0]]),
        rows=torch.arange(4),
        lengths=[4],
        class_attention=torch.tensor([0.5, 0.3, 0.15, 0.05]),
        self_attention=torch.tensor([0.5, 0.3, 0.15, 0.05]),
        logits=torch.zeros(4, 5),
    )
    kept = madtp.keep(given_, Rule(threshold_scale))
    assert kept.positions.tolist() == positions


@pytest.mark.parametrize("method", BOTH)
@given(LENGTHS, st.integers(0, 10_000), st.sampled_from([0.3, 0.8, 1.0, 1.3, 1e9]), st.integers(1, 3))
def test_keep_each_is_keep(
    method: Method, lengths: list[int], seed: int, threshold_scale: float, min_keep: int
) -> None:
    """fvcore counts the one, people run the other."""
    given_, rule = attended(lengths, seed), Rule(threshold_scale, 0.7, min_keep)
    before = [value.clone() for value in _tensors(given_)]
    together, each = method.keep(given_, rule), methods.keep_each(method, given_, rule)
    assert together.lengths == each.lengths
    assert torch.equal(together.positions, each.positions)
    assert torch.equal(together.places, each.places)
    torch.testing.assert_close(together.shares, each.shares)
    assert all(torch.equal(*pair) for pair in zip(before, _tensors(given_), strict=True))


@pytest.mark.parametrize("method", BOTH)
@given(LENGTHS, st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 3.0]))
def test_fewer_stay_as_the_knob_rises(method: Method, lengths: list[int], seed: int, temperature: float) -> None:
    """Within a layer this is exact, which is why one number can meet a budget."""
    given_ = attended(lengths, seed)
    counts = [
        method.keep(given_, Rule(threshold_scale, temperature)).lengths
        for threshold_scale in (1e-6, 0.5, 0.9, 1.1, 1.5, 3, 1e9)
    ]
    assert counts[0] == lengths
    assert counts[-1] == [min(length, 1 + method.MERGED_TOKENS) for length in lengths]
    for before, after in pairwise(counts):
        assert all(b >= a for b, a in zip(before, after, strict=True))


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("min_keep", [1, 2, 5])
@pytest.mark.parametrize("threshold_scale", [1e9, float("inf")])
def test_min_keep_holds_at_full_strength(method: Method, threshold_scale: float, min_keep: int) -> None:
    """The floor of the budget is computed from it: min_keep and what is merged, or all if that is fewer."""
    lengths = [9, 3, 6, 1]
    kept = method.keep(attended(lengths, 0), Rule(threshold_scale, min_keep=min_keep))
    assert kept.lengths == [min(length, min_keep + method.MERGED_TOKENS) for length in lengths]


@pytest.mark.parametrize("method", BOTH)
def test_another_samples_tokens_change_nothing(method: Method) -> None:
    """Same counts, positions and tokens for the first sample whatever stands beside it."""
    one, other = attended([8, 5], 0), attended([8, 5], 1)
    tensors = [torch.cat([a[:8], b[8:]]) for a, b in zip(_tensors(one), _tensors(other), strict=True)]
    mixed = BlockInputs(tensors[0], torch.arange(13), [8, 5], *tensors[1:])
    first, second = method.keep(one, Rule(1.0)), method.keep(mixed, Rule(1.0))
    count = first.lengths[0]
    assert second.lengths[0] == count < 8
    assert torch.equal(first.positions[:count], second.positions[:count])
    torch.testing.assert_close(_made(first, one)[:count], _made(second, mixed)[:count])


@pytest.mark.parametrize("method", BOTH)
def test_the_task_reaches_the_dictionary_logits_through_what_is_merged(method: Method) -> None:
    """A threshold passes no gradient; without this path the dictionary would only hear of alignment."""
    given_ = attended([9], 0)
    logits = given_.logits.requires_grad_()
    kept = method.keep(replace(given_, logits=logits), Rule(1.2))
    assert 2 <= kept.lengths[0] < 8
    _made(kept, given_).square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_methods_are_the_files_of_their_folder() -> None:
    """A new one is one new file, and a slip on the command line names what there is."""
    assert {"madtp", "madtp-paper"} <= set(methods.names())
    assert methods.get("madtp-paper") is madtp_paper
    assert methods.get("madtp") is madtp
    with pytest.raises(UsageError, match=r"no method 'topk'\. Choose one of: .*madtp"):
        methods.get("topk")
