"""The dictionary that both modalities share."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from madtp_cli.pruning import mag
from madtp_cli.pruning.mag import AlignmentDictionary


@pytest.fixture
def dictionary() -> AlignmentDictionary:
    """Five atoms of width 4 for towers of width 6 and 3."""
    torch.manual_seed(0)
    return AlignmentDictionary({"vision": 6, "text": 3}, size=5, width=4)


@pytest.mark.parametrize(("tower", "width"), [("vision", 6), ("text", 3)])
def test_folding_is_projecting_and_matching(dictionary: AlignmentDictionary, tower: str, width: int) -> None:
    """One product per token replaces two, for towers of any width."""
    tokens = torch.randn(7, width)
    expected = dictionary.project(tower, tokens) @ dictionary.dictionary.T / math.sqrt(4)
    torch.testing.assert_close(tokens @ dictionary.folded(tower), expected)


def test_first_logits_have_variance_one() -> None:
    """With smaller logits every atom attends to all tokens equally; with larger ones to a single token."""
    torch.manual_seed(0)
    dictionary = AlignmentDictionary({"vision": 64}, size=300, width=96)
    tokens = torch.nn.functional.layer_norm(torch.randn(300, 64), [64])
    assert (tokens @ dictionary.folded("vision")).var().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("part", ["dictionary", "projections.vision.weight"])
def test_the_folded_matrix_follows_a_change(dictionary: AlignmentDictionary, part: str) -> None:
    """It is cached between forward passes without gradients, while training and loading change the parameters."""
    value = dictionary.get_parameter(part)
    with torch.no_grad():
        before = dictionary.folded("vision")
        assert dictionary.folded("vision") is before
        value.mul_(2)
        torch.testing.assert_close(dictionary.folded("vision"), 2 * before)


def test_a_changed_copy_does_not_use_the_originals_folded_matrix(dictionary: AlignmentDictionary) -> None:
    """Students are copies, and torch counts the changes of a copy from zero; equal counts do not mean equal values."""
    original = copy.deepcopy(dictionary)
    with torch.no_grad():
        for value in original.parameters():
            value.mul_(1)
        folded = original.folded("vision")
        copied = copy.deepcopy(original)
        for value in copied.parameters():
            value.mul_(3)
        torch.testing.assert_close(copied.folded("vision"), 9 * folded)


def test_gradients_reach_dictionary_and_projection(dictionary: AlignmentDictionary) -> None:
    """In the released code the dictionary hardly changes; ours must learn."""
    with torch.no_grad():
        dictionary.folded("vision")  # cached without gradients; training must not use it
    dictionary.folded("vision").square().sum().backward()
    for value in (dictionary.dictionary, dictionary.get_parameter("projections.vision.weight")):
        assert value.grad is not None
        assert value.grad.abs().min() > 0


def test_dictionary_attention_is_a_softmax_over_each_samples_own_tokens() -> None:
    """At temperature 0.5 a difference of log(3)/2 becomes log 3, hence 1/4 and 3/4; padding gets nothing."""
    logits = torch.tensor([[[0.0], [math.log(3) / 2]], [[8.0], [9.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    attention = mag.dictionary_attention(logits, mask, temperature=0.5)
    torch.testing.assert_close(attention, torch.tensor([[[0.25], [0.75]], [[1.0], [0.0]]]))


def test_dictionary_attention_is_float32() -> None:
    """In half precision neighbouring scores would be equal."""
    logits, mask = torch.randn(2, 3, 4).bfloat16(), torch.ones(2, 3, dtype=torch.bool)
    assert mag.dictionary_attention(logits, mask).dtype == torch.float32


def test_a_method_that_does_not_list_the_dictionary_gets_no_logits() -> None:
    """The error says what to do."""
    with pytest.raises(ValueError, match="list the dictionary in NEEDS"):
        mag.dictionary_attention(None, torch.ones(1, 2, dtype=torch.bool))


def test_pooled_features_are_means_weighted_by_attention() -> None:
    """Logits of 0 and log 3 are attention of 1/4 and 3/4; the other sample's tokens take no part."""
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]], [[5.0, -5.0], [7.0, 7.0]]])
    tokens = torch.tensor([[[4.0, 0.0, 8.0], [8.0, 4.0, 0.0]], [[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    expected = torch.tensor([[[7.0, 3.0, 2.0], [6.0, 2.0, 4.0]], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]])
    torch.testing.assert_close(mag.pool(logits, tokens, torch.tensor([[True, True], [True, False]])), expected)


def test_a_sample_without_prunable_tokens_pools_zeros() -> None:
    """An empty caption has only protected tokens; NaN would spoil the training of its whole batch."""
    tokens, mask = torch.tensor([[[0.0] * 4] * 2, [[1.0] * 4] * 2]), torch.tensor([[False] * 2, [True] * 2])
    pooled = mag.pool(torch.zeros(2, 2, 3), tokens, mask)
    assert torch.equal(pooled, torch.stack([torch.zeros(3, 4), torch.ones(3, 4)]))
    assert torch.equal(mag.pool(torch.zeros(1, 0, 3), torch.ones(1, 0, 4), mask[:1, :0]), torch.zeros(1, 3, 4))


def test_the_alignment_loss_is_one_minus_the_cosine() -> None:
    """0 for one direction whatever the lengths, 1 for a right angle, 2 for opposites; here their mean over atoms."""
    first = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    second = torch.tensor([[[9.0, 0.0], [3.0, 0.0], [-1.0, -1.0]]])
    assert mag.alignment_loss(first, second).item() == pytest.approx((0 + 1 + 2) / 3)
