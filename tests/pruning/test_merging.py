"""Which tokens go on, and what becomes of the others."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from madtp_cli.pruning.importance import normalise
from madtp_cli.pruning.merging import PruneDecision, join, means, merge_others

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=4)


def _keep(score: list[float], threshold: float, min_keep: int = 1) -> PruneDecision:
    return merge_others(torch.tensor(score), [len(score)], torch.tensor([threshold]), min_keep)


def _made(kept: PruneDecision, tokens: Tensor) -> Tensor:
    return means(tokens, kept.places, kept.shares, sum(kept.lengths))


def _steps(number: int) -> Tensor:
    """Tokens [0, 0], [1, 10], [2, 20], ..."""
    return torch.arange(float(number))[:, None] * torch.tensor([1.0, 10.0])


def test_the_kept_keep_their_order_and_the_others_become_their_weighted_mean() -> None:
    """(0.05 * 0 + 0.1 * 2 + 0.05 * 4) / 0.2 = 2, though token 2 alone has that place's score."""
    kept = _keep([0.05, 0.3, 0.1, 0.5, 0.05], threshold=0.2)
    torch.testing.assert_close(_made(kept, _steps(5)), torch.tensor([[1.0, 10.0], [3.0, 30.0], [2.0, 20.0]]))
    assert (kept.lengths, kept.positions.tolist()) == ([3], [1, 3, -1])


def test_the_merged_token_weighs_by_importance() -> None:
    """(0.3 * 0 + 0.1 * 1) / 0.4 = 0.25; a plain mean would be 0.5."""
    kept = _keep([0.3, 0.1, 0.6], threshold=0.4)
    torch.testing.assert_close(_made(kept, _steps(3))[-1], torch.tensor([0.25, 2.5]))


def test_tokens_without_any_importance_still_merge_into_their_mean() -> None:
    """Scores can underflow to zero; a merged token of zeros would be no token of this picture."""
    kept = _keep([0.0, 0.0, 1.0, 0.0], threshold=0.5)
    torch.testing.assert_close(_made(kept, _steps(4))[-1], torch.tensor([4 / 3, 40 / 3]))


def test_removing_a_single_token_changes_nothing() -> None:
    """It would be replaced by itself, at another place."""
    kept = _keep([0.3, 0.1, 0.6], threshold=0.2)
    assert torch.equal(_made(kept, _steps(3)), _steps(3))
    assert (kept.lengths, kept.positions.tolist()) == ([3], [0, 1, 2])


def test_a_score_equal_to_the_threshold_goes() -> None:
    """Kept is what exceeds it, so that equal scores at a knob of 1 do not all stay."""
    assert _keep([0.25, 0.25, 0.25, 0.25], threshold=0.25).lengths == [2]


def test_who_is_joined_becomes_the_mean_and_keeps_its_place() -> None:
    """(0.3 * 1 + 0.1 * 3) / 0.4 = 1.5, and (0.4 * [2, 0] + 0.2 * [5, 3]) / 0.6 = [3, 1]; samples do not mix."""
    tokens = torch.tensor([[1.0, 0], [3.0, 0], [2.0, 0], [5.0, 3.0], [7.0, 7.0]])
    kept = join(torch.tensor([0.3, 0.1, 0.4, 0.2, 1.0]), [4, 1], torch.tensor([0, 0, 2, 2, 4]))
    torch.testing.assert_close(_made(kept, tokens), torch.tensor([[1.5, 0], [3.0, 1.0], [7.0, 7.0]]))
    assert (kept.lengths, kept.positions.tolist(), kept.places.tolist()) == ([2, 1], [0, 2, 4], [0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("min_keep", "positions"),
    [
        (0, [-1]),
        (1, [3, -1]),
        (2, [1, 3, -1]),
        (3, [1, 2, 3, -1]),
        *[(number, [0, 1, 2, 3, 4]) for number in (4, 5, 9)],
    ],
)
@pytest.mark.parametrize("threshold", [1e9, float("inf"), float("nan")])
def test_min_keep_holds_at_any_threshold(min_keep: int, positions: list[int], threshold: float) -> None:
    """The best stay, in their order; an infinite knob times an importance of zero is not a number."""
    kept = _keep([0.05, 0.3, 0.12, 0.45, 0.08], threshold, min_keep=min_keep)
    assert kept.positions.tolist() == positions


def _random(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(sum(lengths), 3, generator=generator)
    return tokens, normalise(torch.rand(sum(lengths), generator=generator), lengths)


@given(LENGTHS, st.integers(0, 10_000), st.integers(1, 3), st.data())
def test_every_sample_is_treated_as_if_alone(lengths: list[int], seed: int, min_keep: int, data: st.DataObject) -> None:
    """The released code keeps the batch's largest count, so answers depended on batch mates."""
    tokens, score = _random(lengths, seed)
    threshold = torch.tensor(data.draw(st.lists(st.floats(0, 0.625, width=32), min_size=len(lengths),
                                                max_size=len(lengths))))  # fmt: skip
    given_before = [value.clone() for value in (tokens, score, threshold)]
    together = merge_others(score, lengths, threshold, min_keep)
    made = _made(together, tokens)
    assert all(torch.equal(*pair) for pair in zip(given_before, (tokens, score, threshold), strict=True))
    row = start = 0
    for sample, length in enumerate(lengths):
        own, limit = slice(start, start + length), threshold[sample : sample + 1]
        alone = merge_others(score[own], [length], limit, min_keep)
        part = slice(row, row + together.lengths[sample])
        assert alone.lengths == [together.lengths[sample]]
        torch.testing.assert_close(made[part], _made(alone, tokens[own]))
        assert together.positions[part].tolist() == [p + start if p >= 0 else -1 for p in alone.positions.tolist()]
        row, start = part.stop, own.stop


@given(LENGTHS, st.integers(0, 10_000), st.floats(0, 0.625, width=32))
def test_positions_ascend_and_name_the_tokens_they_stand_for(lengths: list[int], seed: int, limit: float) -> None:
    """The released code's order is whatever top-k returns; here only the merged token has no place of its own."""
    tokens, score = _random(lengths, seed)
    kept = merge_others(score, lengths, torch.full((len(lengths),), limit))
    real = kept.positions >= 0
    assert torch.equal(_made(kept, tokens)[real], tokens[kept.positions[real]])
    for positions in kept.positions.split(kept.lengths):
        own = positions.tolist()
        assert -1 not in own[:-1]
        names = own[:-1] if own and own[-1] == -1 else own
        assert names == sorted(set(names))


@given(LENGTHS, st.integers(0, 10_000), st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5))
def test_fewer_stay_as_the_threshold_rises(lengths: list[int], seed: int, limits: list[float]) -> None:
    """The search for the knob relies on it."""
    _, score = _random(lengths, seed)
    counts = [merge_others(score, lengths, torch.full((len(lengths),), limit)).lengths for limit in sorted(limits)]
    for before, after in pairwise(counts):
        assert all(b >= a for b, a in zip(before, after, strict=True))


def test_a_change_in_one_sample_leaves_the_other_alone() -> None:
    """Even wild values: a product with zero is not nothing where one factor is infinite."""
    tokens, score = _random([4, 3], seed=0)
    threshold = torch.tensor([0.3, 0.3])
    kept = merge_others(score, [4, 3], threshold)
    before = _made(kept, tokens)
    tokens[4:] = float("inf")
    after = _made(kept, tokens)
    assert torch.equal(before[: kept.lengths[0]], after[: kept.lengths[0]])


def test_gradients_reach_the_importance_of_merged_tokens_and_no_other() -> None:
    """This is how the dictionary hears of the task; m = (a x + b y) / (a + b) has dm/da = (x - m) / (a + b)."""
    tokens = torch.tensor([[1.0], [3.0], [7.0]], requires_grad=True)
    score = torch.tensor([0.1, 0.3, 0.6], requires_grad=True)
    _made(merge_others(score, [3], torch.tensor([0.4])), tokens)[-1].sum().backward()
    assert score.grad is not None
    assert tokens.grad is not None
    torch.testing.assert_close(score.grad, torch.tensor([(1 - 2.5) / 0.4, (3 - 2.5) / 0.4, 0.0]))
    torch.testing.assert_close(tokens.grad, torch.tensor([[0.25], [0.75], [0.0]]))


def test_tokens_keep_their_number_format() -> None:
    """Half-precision towers stay half-precision though the scores are float32."""
    tokens, score = _random([5], seed=1)
    kept = merge_others(score, [5], torch.tensor([0.25]))
    assert kept.lengths < [5]
    assert _made(kept, tokens.bfloat16()).dtype == torch.bfloat16
