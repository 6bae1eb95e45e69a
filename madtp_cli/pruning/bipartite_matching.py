"""Bipartite soft matching: every second token may join its most similar token among the others.

Source: Bolya et al., "Token Merging: Your ViT But Faster", arXiv:2210.09461.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import ranking


@dataclass(frozen=True)
class Matching:
    """The result of a matching; every field is int64 [batch, longest].

    Attributes:
        goes_to: Index of the token that a token becomes part of; its own index if it stays.
        order: The paper's order of the tokens that stay: first those of set A, then those of set B.
    """

    goes_to: Tensor
    order: Tensor


def merged_tokens(original: Tensor, threshold_scale: float, block: int) -> Tensor:
    """Return how many tokens a block merges, int64 [batch]: the same number in all blocks, but for rounding.

    The number is a share of the sample's original tokens. It is rounded in such a way that all blocks together merge
    the right number. So the cost changes in small steps.

    Args:
        original: Prunable tokens of each sample before the first block, [batch].
        threshold_scale: The share is one minus `ranking.kept_share` of it.
        block: Number of the block, from 0.

    >>> [merged_tokens(torch.tensor([10.0]), 1 / 3, block).tolist() for block in range(4)]
    [[2], [3], [2], [3]]
    """
    per_block = original.double() * (1 - ranking.kept_share(threshold_scale))
    return ((block + 1) * per_block).floor().long() - (block * per_block).floor().long()


def match(
    metric: Tensor, order: Tensor, mask: Tensor, number: Tensor, *, first_in_a: bool = False, exportable: bool = False
) -> Matching:
    """Let the tokens of set A that are most similar to a token of set B join it.

    The sets alternate in the given order. In a model with a class token, that token is the first of set A; it is
    protected, so the first prunable token is in set B.

    Args:
        metric: What is compared, by the cosine, [batch, longest, width].
        order: Order of the tokens, int64 [batch, longest].
        mask: bool [batch, longest]; true for prunable tokens.
        number: How many tokens join another one, [batch]; at most the tokens of set A do.
        first_in_a: Whether the first prunable token is in set A.
        exportable: Whether only operators are allowed that exporters support.
    """
    longest = mask.shape[1]
    index = torch.arange(longest, device=mask.device)
    rank = ranking.ranks(-order, mask, exportable=exportable)
    if longest < 2:
        return Matching(index.expand(mask.shape), rank)
    token = ranking.inverse(rank)
    directions = functional.normalize(metric.detach().float(), dim=-1)
    directions = directions.gather(1, token[:, :, None].expand_as(directions))
    a, b = slice(int(not first_in_a), None, 2), slice(int(first_in_a), None, 2)
    is_real = mask.gather(1, token)
    cosine = (directions[:, a] @ directions[:, b].transpose(1, 2)).masked_fill(~is_real[:, None, b], -2.0)
    similarity, best = cosine.max(2)
    joins = ranking.highest(similarity, is_real[:, a], number, exportable=exportable)
    source = token[:, a]
    target = torch.where(joins, token[:, b].gather(1, best), source)
    goes_to = index.expand(mask.shape).scatter(1, source, target)
    in_a = rank % 2 == int(not first_in_a)
    return Matching(goes_to, torch.where(in_a, rank, rank + longest))
