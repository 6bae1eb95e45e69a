"""Density peaks: important tokens that differ from every more important token.

Importance alone keeps ten patches of one large object and loses a small one. Here a token's score also depends on its
distance from the most similar token that is more important. A token that is pruned joins that token. Source: Rodriguez
and Laio, "Clustering by fast search and find of density peaks", Science 344 (2014), with importance in place of
density.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: Tokens, sorted by importance, that are compared at once with all tokens up to the last of them.
AT_ONCE = 144
#: Upper bound of the tokens per sample in an exported model, where the number is not known in advance.
MOST_TOKENS = 4096


def spacing(width: int, compared_width: int) -> int:
    """Return the distance between the numbers of a token that are compared.

    The cosine of these numbers is close to the cosine of all numbers, at a lower cost.

    >>> spacing(128, 64), spacing(768, 64)
    (2, 12)
    """
    return -(-width // compared_width)


def distinct_importance(
    values: Tensor, importance: Tensor, mask: Tensor, *, exportable: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the root of importance times distinctness, and the nearest more important token, each [batch, longest].

    Args:
        values: Numbers of each token to compare, [batch, longest, numbers]; gradients do not pass.
        importance: Non-negative, [batch, longest].
        mask: bool [batch, longest]; true for prunable tokens.
        exportable: Whether only operators are allowed that exporters support.
    """
    search = compare_all_pairs if exportable else nearest_more_important
    nearest, distinctness = search(values, importance, mask)
    return importance.detach().sqrt() * distinctness, nearest


def comparisons(tokens: Any) -> Any:
    """Return how many cosines `nearest_more_important` computes for samples of these token counts, a numpy array.

    >>> import numpy as np
    >>> comparisons(np.array([2, AT_ONCE, AT_ONCE + 2])).tolist()
    [4, 20736, 21028]
    """
    blocks, rest = tokens // AT_ONCE, tokens % AT_ONCE
    return AT_ONCE**2 * blocks * (blocks + 1) // 2 + rest * tokens


def nearest_more_important(values: Tensor, importance: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Find the most similar more important token of each token.

    Similarity is the cosine. Among equally important tokens the earlier one counts as more important.

    Args:
        values: Numbers of each token to compare, [batch, longest, numbers]; gradients do not pass.
        importance: Non-negative, [batch, longest].
        mask: bool [batch, longest]; true for prunable tokens.

    Returns:
        Index of that token within its sample, [batch, longest], the own index for the most important token of a
        sample; and the distinctness, one minus the cosine, [batch, longest] in 0-2, 2 for the most important token.

    >>> values, mask = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]]]), torch.ones(1, 3, dtype=torch.bool)
    >>> nearest, distinctness = nearest_more_important(values, torch.tensor([[0.2, 0.5, 0.3]]), mask)
    >>> nearest.tolist(), distinctness.tolist()
    ([[1, 1, 1]], [[1.0, 2.0, 0.0]])
    """
    if not mask.shape[1]:
        return torch.zeros_like(mask, dtype=torch.long), importance.detach()
    directions = _directions(values)
    # In descending order the more important tokens of each token precede it. Other tokens come last.
    order = importance.detach().masked_fill(~mask, -1.0).argsort(dim=1, descending=True, stable=True)
    cosine, rank = _most_similar_before(directions.gather(1, order[:, :, None].expand_as(directions)))
    nearest = torch.empty_like(order).scatter_(1, order, order.gather(1, rank))
    cosine = torch.empty_like(cosine).scatter_(1, order, cosine)
    return nearest, (1 - cosine).clamp_min(0)


def _directions(values: Tensor) -> Tensor:
    """Return float32 vectors of length one."""
    return functional.normalize(values.detach().float(), dim=-1)


def _most_similar_before(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Find for each vector of [batch, longest, numbers] the most similar one before it.

    Computing the cosines block by block skips most pairs in the wrong order.

    Returns:
        The largest cosine and the index of that vector, each [batch, longest]; -1 and 0 for the first vector.
    """
    longest = directions.shape[1]
    later = directions.new_full((min(AT_ONCE, longest),) * 2, -4.0).triu()
    parts = []
    for start in range(0, longest, AT_ONCE):
        end = min(start + AT_ONCE, longest)
        cosines = directions[:, start:end] @ directions[:, :end].transpose(1, 2)
        # Adding -4 excludes later vectors, in a third of the time of filling.
        cosines[:, :, start:] += later[: end - start, : end - start]
        parts.append(cosines.max(2))
    cosine, index = (torch.cat(kind, 1) for kind in zip(*parts, strict=True))
    cosine[:, :1], index[:, :1] = -1.0, 0
    return cosine, index


def compare_all_pairs(values: Tensor, importance: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same as `nearest_more_important`, by operators that exporters support.

    >>> values, mask = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]]]), torch.ones(1, 3, dtype=torch.bool)
    >>> nearest, distinctness = compare_all_pairs(values, torch.tensor([[0.2, 0.5, 0.3]]), mask)
    >>> nearest.tolist(), distinctness.tolist()
    ([[1, 1, 1]], [[1.0, 2.0, 0.0]])
    """
    directions = _directions(values)
    index = torch.arange(mask.shape[1], device=mask.device)
    own, other = importance[:, :, None], importance[:, None, :]
    precedes = (other > own) | ((other == own) & (index[None, :] < index[:, None]))
    precedes = precedes & mask[:, None, :]
    cosine, nearest = (directions @ directions.transpose(1, 2)).masked_fill(~precedes, -1.0).max(2)
    return torch.where(precedes.any(2), nearest, index), (1 - cosine).clamp_min(0)


def is_most_important(nearest: Tensor, mask: Tensor) -> Tensor:
    """Return which token is the most important one of its sample, bool [batch, longest].

    Args:
        nearest: From `nearest_more_important`.
        mask: bool [batch, longest]; true for prunable tokens.
    """
    return (nearest == torch.arange(nearest.shape[1], device=nearest.device)) & mask


def resolve_targets(nearest: Tensor, kept: Tensor, longest: int) -> Tensor:
    """Follow the nearest more important tokens from each token until one is kept.

    Args:
        nearest: From `nearest_more_important`, [batch, longest]. The most important token must be kept.
        kept: bool [batch, longest].
        longest: Tokens of the largest sample, or an upper bound.

    Returns:
        Index of that kept token, [batch, longest]; the own index for kept tokens.

    >>> resolve_targets(torch.tensor([[0, 0, 1, 2]]), torch.tensor([[True, False, False, True]]), 4).tolist()
    [[0, 0, 0, 3]]
    """
    target = torch.where(kept, torch.arange(kept.shape[1], device=kept.device), nearest)
    for _ in range(max(1, (int(longest) - 1).bit_length())):  # each round doubles the number of steps
        target = target.gather(1, target)
    return target
