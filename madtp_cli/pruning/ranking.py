"""Ranks of the tokens of a sample, and how many of them are kept, for methods that keep a fixed share."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_share(threshold_scale: float) -> float:
    """Return the share of the tokens that a block keeps at a threshold scale: all at 0, none at infinity.

    >>> kept_share(0.0), kept_share(0.25), kept_share(float("inf"))
    (1.0, 0.8, 0.0)
    """
    return 1 / (1 + threshold_scale)


def kept_count(mask: Tensor, share: float, min_keep: int) -> Tensor:
    """Return the number of tokens to keep: the share of each sample's prunable tokens, rounded up; int64 [batch].

    Args:
        mask: bool [batch, longest]; true for prunable tokens.
        share: Share to keep, 0 to 1.
        min_keep: Tokens that a sample keeps at least, if it has as many.

    >>> kept_count(torch.tensor([[True] * 4, [True, True, False, False]]), 0.6, 1).tolist()
    [3, 2]
    """
    tokens = mask.sum(1)
    return (tokens.double() * share).ceil().long().clamp_min(min_keep).minimum(tokens)


def ranks(score: Tensor, mask: Tensor, *, exportable: bool = False) -> Tensor:
    """Return the rank of each token by falling score, int64 [batch, longest]: 0 for the highest one of a sample.

    Of equal scores the earlier one comes first. Tokens that are not prunable come after all others.

    Args:
        score: [batch, longest].
        mask: bool [batch, longest]; true for prunable tokens.
        exportable: Whether only operators are allowed that exporters support.

    >>> score, mask = torch.tensor([[0.2, 0.9, 0.5, 0.5]]), torch.tensor([[True, False, True, True]])
    >>> ranks(score, mask).tolist(), ranks(score, mask, exportable=True).tolist()
    ([[2, 3, 0, 1]], [[2, 3, 0, 1]])
    """
    score = score.detach().double().masked_fill(~mask, float("-inf"))
    index = torch.arange(mask.shape[1], device=mask.device)
    if exportable:
        own, other = score[:, :, None], score[:, None, :]
        return ((other > own) | ((other == own) & (index[None, :] < index[:, None]))).sum(2)
    order = score.argsort(dim=1, descending=True, stable=True)
    return torch.empty_like(order).scatter_(1, order, index.expand(order.shape))


def highest(score: Tensor, mask: Tensor, count: Tensor, *, exportable: bool = False) -> Tensor:
    """Return a mask of each sample's prunable tokens with the highest scores, bool [batch, longest].

    Args:
        score: [batch, longest].
        mask: bool [batch, longest]; true for prunable tokens.
        count: Number of tokens of each sample, [batch].
        exportable: Whether only operators are allowed that exporters support.

    >>> score, mask = torch.tensor([[0.2, 0.9, 0.5]]), torch.tensor([[True, False, True]])
    >>> highest(score, mask, torch.tensor([1])).tolist()
    [[False, False, True]]
    """
    return (ranks(score, mask, exportable=exportable) < count[:, None]) & mask


def highest_share(
    score: Tensor, mask: Tensor, threshold_scale: float, min_keep: int, *, exportable: bool = False
) -> Tensor:
    """Return a mask of the tokens to keep, see `highest`; their number is that of `kept_count` at a threshold scale."""
    count = kept_count(mask, kept_share(threshold_scale), min_keep)
    return highest(score, mask, count, exportable=exportable)


def inverse(rank: Tensor) -> Tensor:
    """Return the token of each rank, [batch, longest].

    >>> inverse(torch.tensor([[2, 0, 1]])).tolist()
    [[1, 2, 0]]
    """
    index = torch.arange(rank.shape[1], device=rank.device).expand(rank.shape)
    return torch.zeros_like(rank).scatter(1, rank, index)
