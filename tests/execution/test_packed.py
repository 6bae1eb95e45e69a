"""Packed tokens."""

from __future__ import annotations

import pytest
import torch

from madtp_cli.execution.packed import Packed, pack


def test_packing_drops_padding_and_nothing_else() -> None:
    """Remaining padding would be scored and computed."""
    padded = torch.arange(12.0).view(2, 3, 2)
    tokens = pack(padded, torch.tensor([[1, 0, 0], [1, 1, 1]]))
    assert tokens.data.tolist() == [[0.0, 1.0], [6.0, 7.0], [8.0, 9.0], [10.0, 11.0]]
    assert tokens.lengths == [1, 3]


def test_without_a_mask_every_token_is_real() -> None:
    """Images all have the same number of patches."""
    tokens = pack(torch.arange(12.0).view(2, 3, 2))
    assert tokens.lengths == [3, 3]
    assert tokens.data.shape == (6, 2)


def test_lengths_that_do_not_fit_are_refused_with_both_numbers() -> None:
    """Otherwise the error would show as a wrong result layers later."""
    with pytest.raises(ValueError, match=r"lengths sum to 5, but there are 4 tokens"):
        Packed(torch.zeros(4, 2), [2, 3])
    with pytest.raises(ValueError, match=r"sum to 4, but there are 3"):
        Packed(torch.zeros(4, 2), [1, 3]).replace(torch.zeros(3, 2))


def test_first_tokens_are_the_ones_read_out() -> None:
    """[CLS] and [ENC] are first tokens; samples have different numbers of tokens."""
    tokens = Packed(torch.arange(6.0).view(6, 1), [2, 1, 3])
    assert tokens.first().tolist() == [[0.0], [2.0], [3.0]]


def test_last_tokens_are_the_ends_of_the_texts() -> None:
    """CLIP reads a text from its end."""
    tokens = Packed(torch.arange(6.0).view(6, 1), [2, 1, 3])
    assert tokens.last().tolist() == [[1.0], [2.0], [5.0]]


@pytest.mark.parametrize(("part", "rows", "lengths"), [(slice(0, 2), [0, 1, 2], [2, 1]),
                                                       (slice(2, None), [3, 4, 5], [3])])  # fmt: skip
def test_a_part_holds_whole_samples(part: slice, rows: list[int], lengths: list[int]) -> None:
    """NLVR2 separates left and right images in this way."""
    tokens = Packed(torch.arange(6.0).view(6, 1), [2, 1, 3]).protect_ends().part(part)
    assert tokens.data.flatten().tolist() == rows
    assert tokens.lengths == lengths
    assert tokens.protected_counts == [1] * len(lengths)


@pytest.mark.parametrize(("last", "protected", "counts"), [
    (False, [True, False, True, True, False, False], [1, 1, 1]),
    (True, [True, True, True, True, False, True], [2, 1, 2]),
])  # fmt: skip
def test_the_ends_of_each_sample_are_protected(last: bool, protected: list[bool], counts: list[int]) -> None:
    """A sample of one token has one protected token."""
    tokens = Packed(torch.zeros(6, 1), [2, 1, 3]).protect_ends(first=True, last=last)
    assert tokens.protected is not None
    assert (tokens.protected.tolist(), tokens.protected_counts) == (protected, counts)


@pytest.mark.parametrize("mask", [None, torch.tensor([[1, 1, 0], [1, 1, 1]])])
def test_any_tokens_can_be_protected(mask: torch.Tensor | None) -> None:
    """Also tokens in the middle of a sample."""
    protected = torch.tensor([[False, True, True], [True, False, True]])
    tokens = pack(torch.zeros(2, 3, 1), mask, protected=protected)
    assert tokens.protected is not None
    assert tokens.protected.tolist() == (protected.flatten() if mask is None else protected[mask.bool()]).tolist()
    assert tokens.protected_counts == [2 if mask is None else 1, 2]
