"""Thresholds of a sample, and the choice of the tokens above them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def least_atom_mean(importance: Tensor, attention: Tensor) -> Tensor:
    """Return the smallest of the atoms' mean importances, [batch]: the threshold of the paper.

    Args:
        importance: Token importance, [batch, longest]; 0 for tokens that are not prunable.
        attention: From `mag.dictionary_attention`, [batch, longest, atoms].

    Source: MADTP, arXiv:2403.02991.
    """
    means = importance[:, None, :] @ attention
    return means.squeeze(1).amin(-1)


def quadratic_mean(score: Tensor, mask: Tensor) -> Tensor:
    """Return the root of the mean square of each sample's scores, [batch].

    Args:
        score: [batch, longest]; 0 for tokens that are not prunable.
        mask: bool [batch, longest]; true for prunable tokens.

    >>> quadratic_mean(torch.tensor([[1.0, 7.0, 0.0]]), torch.tensor([[True, True, False]])).tolist()
    [5.0]
    """
    return (score.square().sum(1) / mask.sum(1).clamp_min(1)).sqrt()


def keep_above(score: Tensor, threshold: Tensor, mask: Tensor, min_keep: int) -> Tensor:
    """Choose the prunable tokens whose score exceeds the threshold, and always each sample's best ones.

    Args:
        score: Non-negative, [batch, longest].
        threshold: [batch].
        mask: bool [batch, longest]; true for prunable tokens.
        min_keep: Number of each sample's best tokens that are kept whatever the threshold is.

    Returns:
        bool [batch, longest].

    >>> score, mask = torch.tensor([[0.2, 0.5, 0.3], [0.1, 0.2, 0.9]]), torch.tensor([[True] * 3, [True, True, False]])
    >>> keep_above(score, torch.tensor([0.25, 0.25]), mask, min_keep=1).tolist()
    [[False, True, True], [False, True, False]]
    """
    score = score.masked_fill(~mask, -1.0)
    # A sample may have fewer than `min_keep` tokens; the added cells have the lowest score.
    longer = functional.pad(score, (0, min_keep), value=-2.0)
    best = torch.zeros_like(longer).scatter(1, longer.topk(min_keep, dim=1).indices, 1.0)
    is_best = best[:, : score.shape[1]] > 0
    return ((score > threshold[:, None]) | is_best) & mask
