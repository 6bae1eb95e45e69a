"""Three scores, their scale, and the threshold made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from madtp_cli.pruning import importance, segments

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(LENGTHS, st.integers(0, 10_000), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_every_score_is_float32_and_sums_to_one_over_each_sample(
    lengths: list[int], seed: int, dtype: torch.dtype
) -> None:
    """Else one score would outweigh the others, or a threshold mean something else for longer texts."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    readout = torch.rand(total, 3, generator=generator).to(dtype)
    output = torch.randn(total, 3, 4, generator=generator).to(dtype)
    logits = (3 * torch.randn(total, 5, generator=generator)).to(dtype)
    attention = importance.dictionary_attention(logits, lengths, 0.5)
    scores = [
        importance.normalise(importance.class_attention(readout, output), lengths),
        importance.normalise(readout[:, 0], lengths),
        importance.dictionary_score(attention, lengths),
    ]
    for score in scores:
        assert score.dtype == torch.float32
        assert score.min() >= 0
        sums = segments.pad(score, lengths).sum(1)
        torch.testing.assert_close(sums, torch.ones(len(lengths)))
    threshold = importance.pruning_threshold(attention, scores[0], lengths, 1.0)
    assert threshold.dtype == torch.float32


def test_a_sample_that_nobody_looks_at_counts_its_tokens_alike() -> None:
    """Nothing divided by nothing would make the whole batch NaN."""
    assert importance.normalise(torch.tensor([0.0, 0.0, 1.0, 3.0]), [2, 2]).tolist() == [0.5, 0.5, 0.25, 0.75]


def test_a_head_counts_for_a_token_as_much_as_it_gives_to_it() -> None:
    """Norms 3 and 1 weigh 0.2 and 0.6 to 0.3; norms 1 and 1 weigh 0.8 and 0.4 to 0.6: one third and two thirds."""
    readout = torch.tensor([[0.2, 0.6], [0.8, 0.4]])
    output = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
    expected = torch.tensor([1 / 3, 2 / 3])
    score = importance.normalise(importance.class_attention(readout, output), [2])
    torch.testing.assert_close(score, expected)


def test_dictionary_attention_is_a_softmax_over_each_samples_own_tokens() -> None:
    """At temperature 0.5 a difference of log(3)/2 is one of log 3, hence 1/4 and 3/4; padding gets nothing."""
    logits = torch.tensor([[0.0], [math.log(3) / 2], [8.0]])
    attention = importance.dictionary_attention(logits, [2, 1], temperature=0.5)
    torch.testing.assert_close(attention, torch.tensor([[[0.25], [0.75]], [[1.0], [0.0]]]))


def test_the_dictionary_score_is_that_of_the_most_attentive_atom() -> None:
    """Maxima of 0.5, 0.7 and 0.3 over the atoms, divided by their sum of 1.5."""
    attention = torch.tensor([[[0.5, 0.1], [0.2, 0.7], [0.3, 0.2]]])
    expected = torch.tensor([0.5, 0.7, 0.3]) / 1.5
    torch.testing.assert_close(importance.dictionary_score(attention, [3]), expected)


@pytest.mark.parametrize("threshold_scale", [0.0, 1.0, 2.5])
def test_the_threshold_is_the_knob_times_the_least_mean_importance(threshold_scale: float) -> None:
    """The atoms see 0.7 * 0.8 + 0.3 * 0.2 = 0.62 and 0.1 * 0.8 + 0.9 * 0.2 = 0.26; a lone token's mean is itself."""
    attention = torch.tensor([[[0.7, 0.1], [0.3, 0.9]], [[1.0, 1.0], [0.0, 0.0]]])
    score = torch.tensor([0.8, 0.2, 1.0])
    threshold = importance.pruning_threshold(attention, score, [2, 1], threshold_scale)
    torch.testing.assert_close(threshold, threshold_scale * torch.tensor([0.26, 1.0]))


def _scores(rows: Sequence[Tensor], lengths: list[int]) -> list[Tensor]:
    logits, readout, output = rows
    attention = importance.dictionary_attention(logits, lengths, 0.7)
    score = importance.normalise(importance.class_attention(readout, output), lengths)
    dictionary = importance.dictionary_score(attention, lengths)
    return [score, dictionary, importance.pruning_threshold(attention, (score + dictionary) / 2, lengths, 1.2)]


def test_a_samples_scores_do_not_depend_on_its_batch_mates() -> None:
    """Nothing crosses a segment: each sample's scores and threshold are those it has alone."""
    torch.manual_seed(0)
    lengths = [4, 1, 6]
    given_rows = [torch.randn(11, 5), torch.rand(11, 3), torch.randn(11, 3, 2)]
    before = [rows.clone() for rows in given_rows]
    together = _scores(given_rows, lengths)
    parts = [_scores(part, [length]) for length, *part in
             zip(lengths, *[rows.split(lengths) for rows in given_rows], strict=True)]  # fmt: skip
    for whole, alone in zip(together, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(whole, torch.cat(alone), rtol=1e-6, atol=0)
    assert all(torch.equal(old, new) for old, new in zip(before, given_rows, strict=True))
