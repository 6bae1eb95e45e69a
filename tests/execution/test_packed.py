"""Tokens of a batch without padding."""

from __future__ import annotations

import pytest
import torch

from madtp_cli.execution.packed import Packed, pack


def test_packing_drops_padding_and_nothing_else() -> None:
    """Padding that stays would be scored, kept and paid for."""
    padded = torch.arange(12.0).view(2, 3, 2)
    tokens = pack(padded, torch.tensor([[1, 0, 0], [1, 1, 1]]))
    assert tokens.data.tolist() == [[0.0, 1.0], [6.0, 7.0], [8.0, 9.0], [10.0, 11.0]]
    assert tokens.lengths == [1, 3]


def test_without_a_mask_every_token_is_real() -> None:
    """As of images, whose patches are all alike in number."""
    tokens = pack(torch.arange(12.0).view(2, 3, 2))
    assert tokens.lengths == [3, 3]
    assert tokens.data.shape == (6, 2)


def test_lengths_that_do_not_fit_are_refused_with_both_numbers() -> None:
    """Found here, not as a wrong answer three layers on."""
    with pytest.raises(ValueError, match=r"lengths sum to 5, but there are 4 tokens"):
        Packed(torch.zeros(4, 2), [2, 3])
    with pytest.raises(ValueError, match=r"sum to 4, but there are 3"):
        Packed(torch.zeros(4, 2), [1, 3]).replace(torch.zeros(3, 2))


def test_first_tokens_are_the_ones_read_out() -> None:
    """The answer is read from [CLS] and [ENC], wherever pruning put the other samples."""
    tokens = Packed(torch.arange(6.0).view(6, 1), [2, 1, 3])
    assert tokens.first().tolist() == [[0.0], [2.0], [3.0]]


def test_last_tokens_are_the_ones_a_causal_text_is_read_off() -> None:
    """CLIP's end of text, wherever cropping and pruning put it."""
    tokens = Packed(torch.arange(6.0).view(6, 1), [2, 1, 3])
    assert tokens.last().tolist() == [[1.0], [2.0], [5.0]]


@pytest.mark.parametrize(("part", "rows", "lengths"), [(slice(0, 2), [0, 1, 2], [2, 1]),
                                                       (slice(2, None), [3, 4, 5], [3])])  # fmt: skip
def test_a_part_holds_whole_samples(part: slice, rows: list[int], lengths: list[int]) -> None:
    """Left and right images are told apart so."""
    taken = Packed(torch.arange(6.0).view(6, 1), [2, 1, 3]).part(part)
    assert taken.data.flatten().tolist() == rows
    assert taken.lengths == lengths
