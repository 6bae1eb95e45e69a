"""The scores of token importance and their scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from madtp_cli.pruning import importance, mag, segments

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4)
CPU = torch.device("cpu")


@given(LENGTHS, st.integers(0, 10_000), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_every_score_is_float32_and_sums_to_one_over_each_sample(
    lengths: list[int], seed: int, dtype: torch.dtype
) -> None:
    """Otherwise one score would outweigh the others, or a threshold would depend on the number of tokens."""
    generator = torch.Generator().manual_seed(seed)
    batch, longest, mask = len(lengths), max(lengths), segments.real_rows(lengths, CPU)
    read_out = torch.rand(batch, longest, 3, generator=generator).to(dtype)
    output = torch.randn(batch, longest, 3, 4, generator=generator).to(dtype)
    logits = (3 * torch.randn(batch, longest, 5, generator=generator)).to(dtype)
    attention = mag.dictionary_attention(logits, mask, 0.5)
    first = importance.normalise(importance.class_attention(read_out, output), mask)
    second = importance.normalise(read_out[:, :, 0], mask)
    for score in (
        first,
        second,
        importance.dictionary_score(attention, mask),
        importance.token_importance(first, second, attention, mask),
    ):
        assert score.dtype == torch.float32
        assert score.min() >= 0
        assert not score[~mask].any()
        torch.testing.assert_close(score.sum(1), torch.ones(batch))


def test_tokens_are_equally_important_if_all_scores_are_zero() -> None:
    """Dividing zero by zero would make the whole batch NaN."""
    mask = torch.tensor([[True, True], [True, True], [False, False]])
    score = importance.normalise(torch.tensor([[0.0, 0.0], [1.0, 3.0], [5.0, 5.0]]), mask)
    assert score.tolist() == [[0.5, 0.5], [0.25, 0.75], [0.0, 0.0]]


def test_a_heads_weight_is_the_norm_of_its_output() -> None:
    """Norms 3 and 1 weigh 0.2 and 0.6 to 0.3; norms 1 and 1 weigh 0.8 and 0.4 to 0.6: one third and two thirds."""
    read_out = torch.tensor([[[0.2, 0.6], [0.8, 0.4]]])
    output = torch.tensor([[[[3.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]])
    score = importance.normalise(importance.class_attention(read_out, output), torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(score, torch.tensor([[1 / 3, 2 / 3]]))


def test_the_dictionary_score_is_the_attention_of_the_most_attentive_atom() -> None:
    """The maxima over the atoms are 0.5, 0.7 and 0.3; they are divided by their sum, 1.5."""
    attention = torch.tensor([[[0.5, 0.1], [0.2, 0.7], [0.3, 0.2]]])
    score = importance.dictionary_score(attention, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(score, torch.tensor([[0.5, 0.7, 0.3]]) / 1.5)


def test_before_the_first_block_the_importance_is_the_dictionary_score() -> None:
    """No attention is known there; what is known has equal weight."""
    mask, attention = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[[0.8, 0.5], [0.2, 0.5]]])
    alone = importance.token_importance(None, None, attention, mask)
    torch.testing.assert_close(alone, importance.dictionary_score(attention, mask))
    both = importance.token_importance(torch.tensor([[0.0, 1.0]]), None, attention, mask)
    torch.testing.assert_close(both, (alone + torch.tensor([[0.0, 1.0]])) / 2)


def _scores(values: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    logits, read_out, output = values
    score = importance.normalise(importance.class_attention(read_out, output), mask)
    return [score, importance.dictionary_score(mag.dictionary_attention(logits, mask, 0.7), mask)]


def test_the_scores_of_a_sample_do_not_depend_on_other_samples() -> None:
    """Nothing is mixed across the batch, and no argument is changed."""
    torch.manual_seed(0)
    lengths = [4, 1, 6]
    values = [torch.randn(3, 6, 5), torch.rand(3, 6, 3), torch.randn(3, 6, 3, 2)]
    before = [value.clone() for value in values]
    together = _scores(values, segments.real_rows(lengths, CPU))
    for sample, length in enumerate(lengths):
        alone = _scores(
            [value[sample : sample + 1, :length] for value in values], torch.ones(1, length, dtype=torch.bool)
        )
        for whole, own in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[sample, :length], own[0], rtol=1e-6, atol=0)
    assert all(torch.equal(old, new) for old, new in zip(before, values, strict=True))
