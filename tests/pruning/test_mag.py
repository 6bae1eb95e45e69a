"""The dictionary both modalities share."""

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
    """One product per token instead of two; towers of any width meet in one space."""
    tokens = torch.randn(7, width)
    expected = dictionary.project(tower, tokens) @ dictionary.dictionary.T / math.sqrt(4)
    torch.testing.assert_close(tokens @ dictionary.folded(tower), expected)


def test_first_logits_have_variance_one() -> None:
    """Smaller, every atom attends to all tokens alike; larger, to a single one."""
    torch.manual_seed(0)
    dictionary = AlignmentDictionary({"vision": 64}, size=300, width=96)
    tokens = torch.nn.functional.layer_norm(torch.randn(300, 64), [64])
    assert (tokens @ dictionary.folded("vision")).var().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("part", ["dictionary", "projections.vision.weight"])
def test_a_change_is_seen_by_the_next_fold(dictionary: AlignmentDictionary, part: str) -> None:
    """The fold is kept between forwards without gradients; training and loading change it underneath."""
    value = dictionary.get_parameter(part)
    with torch.no_grad():
        before = dictionary.folded("vision")
        assert dictionary.folded("vision") is before
        value.mul_(2)
        torch.testing.assert_close(dictionary.folded("vision"), 2 * before)


def test_a_copy_that_is_changed_does_not_answer_with_the_originals_fold(dictionary: AlignmentDictionary) -> None:
    """Students are copies, and torch counts a copy's changes from zero: equal counts need not mean equal values."""
    original = copy.deepcopy(dictionary)
    with torch.no_grad():
        for value in original.parameters():
            value.mul_(1)
        folded = original.folded("vision")
        copied = copy.deepcopy(original)
        for value in copied.parameters():
            value.mul_(3)
        torch.testing.assert_close(copied.folded("vision"), 9 * folded)


def test_the_fold_passes_gradients_to_dictionary_and_projection(dictionary: AlignmentDictionary) -> None:
    """The released code's dictionary hardly moves; ours is to learn."""
    with torch.no_grad():
        dictionary.folded("vision")  # kept, and of no use for training
    dictionary.folded("vision").square().sum().backward()
    for value in (dictionary.dictionary, dictionary.get_parameter("projections.vision.weight")):
        assert value.grad is not None
        assert value.grad.abs().min() > 0


def test_pooled_features_are_means_weighted_by_attention() -> None:
    """Logits of 0 and log 3 are attention of 1/4 and 3/4; the other sample's tokens take no part."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [5.0, -5.0]])
    tokens = torch.tensor([[4.0, 0.0, 8.0], [8.0, 4.0, 0.0], [1.0, 2.0, 3.0]])
    expected = torch.tensor([[[7.0, 3.0, 2.0], [6.0, 2.0, 4.0]], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]])
    torch.testing.assert_close(mag.pool(logits, tokens, [2, 1]), expected)


def test_a_sample_without_tokens_pools_nothing() -> None:
    """An empty caption has none but pinned ones; NaN would spoil its whole batch's training."""
    pooled = mag.pool(torch.zeros(2, 3), torch.ones(2, 4), [0, 2])
    assert torch.equal(pooled, torch.stack([torch.zeros(3, 4), torch.ones(3, 4)]))
    assert torch.equal(mag.pool(torch.zeros(0, 3), torch.ones(0, 4), [0]), torch.zeros(1, 3, 4))


def test_the_alignment_loss_is_one_minus_the_cosine() -> None:
    """0 for one direction whatever the lengths, 1 for a right angle, 2 for opposites; here their mean over atoms."""
    first = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]])
    second = torch.tensor([[[9.0, 0.0], [3.0, 0.0], [-1.0, -1.0]]])
    assert mag.alignment_loss(first, second).item() == pytest.approx((0 + 1 + 2) / 3)
