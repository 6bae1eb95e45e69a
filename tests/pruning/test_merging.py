"""Where pruned tokens go and what the tokens become."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from madtp_cli.pruning import merging, segments
from madtp_cli.pruning.importance import normalise
from madtp_cli.pruning.merging import MERGED, PruneDecision

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=4)
CPU = torch.device("cpu")


def _sample(kept: list[int], weights: list[float]) -> PruneDecision:
    """Merge all tokens of one sample that are not listed."""
    number = len(weights)
    mask = torch.ones(1, number, dtype=torch.bool)
    listed = torch.tensor([[index in kept for index in range(number)]])
    return merging.merge_into_one(listed, torch.tensor([weights]), mask)


def _made(decision: PruneDecision, tokens: Tensor) -> Tensor:
    """Apply a decision to the tokens of one sample, [tokens, width]."""
    moves = merging.moves(decision, torch.ones(1, len(tokens), dtype=torch.bool))
    places, number = moves.places()[0][0], int(moves.kept.sum() + moves.closes.sum())
    shares = merging.mean_shares(decision.weights[0] + merging.WEIGHT_FLOOR, places, number)
    return merging.means(tokens, places, shares, number)


def _steps(number: int) -> Tensor:
    """Return tokens [0, 0], [1, 10], [2, 20], ..."""
    return torch.arange(float(number))[:, None] * torch.tensor([1.0, 10.0])


def test_kept_tokens_keep_their_order_and_the_others_become_their_weighted_mean() -> None:
    """(0.05 * 0 + 0.1 * 2 + 0.05 * 4) / 0.2 = 2."""
    decision = _sample([1, 3], [0.05, 0.3, 0.1, 0.5, 0.05])
    assert decision.goes_to.tolist() == [[MERGED, 1, MERGED, 3, MERGED]]
    torch.testing.assert_close(_made(decision, _steps(5)), torch.tensor([[1.0, 10.0], [3.0, 30.0], [2.0, 20.0]]))


def test_the_merged_token_is_weighted_by_importance() -> None:
    """(0.3 * 0 + 0.1 * 1) / 0.4 = 0.25; a plain mean would be 0.5."""
    torch.testing.assert_close(_made(_sample([2], [0.3, 0.1, 0.6]), _steps(3))[-1], torch.tensor([0.25, 2.5]))


def test_tokens_with_zero_weight_merge_into_their_plain_mean() -> None:
    """Scores can underflow to zero; a merged token of zeros would be no token of this image."""
    made = _made(_sample([2], [0.0, 0.0, 1.0, 0.0]), _steps(4))
    torch.testing.assert_close(made[-1], torch.tensor([4 / 3, 40 / 3]))


def test_pruning_a_single_token_changes_nothing() -> None:
    """It would only move to another place."""
    decision = _sample([0, 2], [0.3, 0.1, 0.6])
    assert decision.goes_to.tolist() == [[0, 1, 2]]
    assert torch.equal(_made(decision, _steps(3)), _steps(3))


def test_a_token_that_others_join_becomes_the_mean_and_keeps_its_place() -> None:
    """(0.3 * 1 + 0.1 * 3) / 0.4 = 1.5, and (0.4 * [2, 0] + 0.2 * [5, 3]) / 0.6 = [3, 1]."""
    tokens = torch.tensor([[1.0, 0], [3.0, 0], [2.0, 0], [5.0, 3.0]])
    decision = PruneDecision(torch.tensor([[0, 0, 2, 2]]), torch.tensor([[0.3, 0.1, 0.4, 0.2]]))
    torch.testing.assert_close(_made(decision, tokens), torch.tensor([[1.5, 0], [3.0, 1.0]]))


def test_the_merged_token_stands_after_the_last_prunable_token_for_any_mask() -> None:
    """Token 0, 3 and 5 are protected: 1 is kept, 2 and 4 merge, and the merged token stands between 4 and 5."""
    mask = torch.tensor([[False, True, True, False, True, False]])
    moves = merging.moves(PruneDecision(torch.tensor([[9, 1, -1, 9, -1, 9]]), torch.ones(1, 6)), mask)
    assert moves.kept.tolist() == [[False, True, False, False, False, False]]
    assert moves.closes.tolist() == [[False, False, False, False, True, False]]
    index = torch.arange(6)
    everything = merging.Moves(moves.kept | ~mask, moves.merged, torch.where(mask, moves.target, index), moves.closes)
    assert everything.places()[0].tolist() == [[0, 1, 3, 2, 3, 4]]


def test_a_sample_without_prunable_tokens_has_no_merged_token() -> None:
    """It must not change the samples beside it."""
    mask = torch.tensor([[False, False], [True, True]])
    decision = merging.merge_into_one(torch.zeros(2, 2, dtype=torch.bool), torch.ones(2, 2), mask)
    moves = merging.moves(decision, mask)
    assert moves.closes.tolist() == [[False, False], [False, True]]
    assert moves.merged.tolist() == [[False, False], [True, True]]


@given(LENGTHS, st.integers(0, 10_000), st.booleans())
def test_padded_means_are_those_of_packed_tokens(lengths: list[int], seed: int, one_token: bool) -> None:
    """An exported model computes the same tokens and the same sizes."""
    generator = torch.Generator().manual_seed(seed)
    mask = segments.real_rows(lengths, CPU)
    tokens = torch.randn(*mask.shape, 5, generator=generator)
    weights = normalise(torch.rand(mask.shape, generator=generator), mask) + merging.WEIGHT_FLOOR
    kept = torch.rand(mask.shape, generator=generator).lt(0.4) & mask
    kept[:, 0] = True
    first_kept = torch.where(kept, torch.arange(mask.shape[1]), 0)
    decision = merging.merge_into_one(kept, weights, mask) if one_token else PruneDecision(first_kept, weights)
    moves = merging.moves(decision, mask)
    counts = (moves.kept.sum(1) + moves.closes.sum(1)).tolist()
    places, longest = torch.where(mask, moves.places()[0], 0), max(counts)
    padded = merging.padded_means(tokens, weights * mask, places, longest)
    sizes = merging.padded_sums(mask.float(), places, longest)
    first = torch.tensor(segments.offsets(counts)[:-1])[:, None]
    rows = segments.unpad(places + first, lengths)
    shares = merging.mean_shares(segments.unpad(weights, lengths), rows, sum(counts))
    packed = merging.means(segments.unpad(tokens, lengths), rows, shares, sum(counts))
    torch.testing.assert_close(segments.unpad(padded, counts), packed, rtol=1e-5, atol=1e-5)
    assert segments.unpad(sizes, counts).tolist() == rows.bincount().tolist()


def test_a_change_in_one_sample_does_not_reach_another() -> None:
    """Not even infinity: zero times infinity would be NaN."""
    tokens, places = torch.randn(7, 3), torch.tensor([0, 1, 0, 1, 2, 2, 2])
    shares = merging.mean_shares(torch.rand(7), places, 3)
    before = merging.means(tokens, places, shares, 3)
    tokens[4:] = float("inf")
    assert torch.equal(before[:2], merging.means(tokens, places, shares, 3)[:2])


def test_gradients_reach_the_weights_of_merged_tokens_and_no_other() -> None:
    """This is how the task trains the dictionary; m = (a x + b y) / (a + b) has dm/da = (x - m) / (a + b)."""
    tokens = torch.tensor([[1.0], [3.0], [7.0]], requires_grad=True)
    score = torch.tensor([[0.1, 0.3, 0.6]], requires_grad=True)
    kept, mask = torch.tensor([[False, False, True]]), torch.ones(1, 3, dtype=torch.bool)
    _made(merging.merge_into_one(kept, score, mask), tokens)[-1].sum().backward()
    assert score.grad is not None
    assert tokens.grad is not None
    torch.testing.assert_close(score.grad, torch.tensor([[(1 - 2.5) / 0.4, (3 - 2.5) / 0.4, 0.0]]))
    torch.testing.assert_close(tokens.grad, torch.tensor([[0.25], [0.75], [0.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tokens_keep_their_dtype(dtype: torch.dtype) -> None:
    """Half-precision towers stay in half precision though the scores are float32."""
    assert _made(_sample([2], [0.3, 0.1, 0.6]), _steps(3).to(dtype)).dtype == dtype
