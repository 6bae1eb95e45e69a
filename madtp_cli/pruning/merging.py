"""What becomes of the tokens that do not stay: one merged token, or each joins one that stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import segments


@dataclass(frozen=True)
class PruneDecision:
    """What becomes of `total` tokens: those that share a place become one.

    `lengths` says how many tokens each sample has afterwards, `positions` [kept] which of the given rows
    each of them was; -1 is a merged token, the last of its sample. `places` [total] is the row among the kept that a
    given token becomes part of, and `shares` [total] its share in it; see `means`.
    """

    lengths: list[int]
    positions: Tensor
    places: Tensor
    shares: Tensor


def merge_others(
    importance: Tensor,
    lengths: Sequence[int],
    threshold: Tensor,
    min_keep: int = 1,
) -> PruneDecision:
    """Keep each sample's tokens above its threshold and merge the others into one.

    Samples keep different numbers of tokens; no sample's result depends on another's.

    Args:
        importance: Token importance score, [total]; sums to 1 over each sample.
        lengths: Tokens of each sample, in packing order.
        threshold: Lowest score worth keeping, [batch], from `pruning_threshold`.
        min_keep: Each sample's best tokens that stay whatever the threshold.

    Returns:
        The kept tokens in their original order, then the mean of the others, weighted by
        importance. Where only one token would go, all stay, because merging one saves nothing.

    Source: MADTP (DTP module), arXiv:2403.02991; order and own counts are ours.

    >>> tokens = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    >>> importance = torch.tensor([0.5, 0.1, 0.1, 0.3])
    >>> kept = merge_others(importance, lengths=[4], threshold=torch.tensor([0.25]))
    >>> kept.lengths, kept.positions.tolist(), means(tokens, kept.places, kept.shares, 3).flatten().tolist()
    ([3], [0, 3, -1], [1.0, 8.0, 3.0])
    """
    padded = segments.pad(importance, lengths, -1.0)
    stays = above(padded, threshold, min_keep)
    device = importance.device
    whole = torch.tensor(lengths, device=device)
    stays = torch.where((stays.sum(1) == whole - 1)[:, None], padded >= 0, stays)
    counts = stays.sum(1).tolist()
    kept = segments.unpad(stays, lengths)
    rows = segments.rows_of(kept, sum(counts))
    cut = [int(count < length) for count, length in zip(counts, lengths, strict=True)]
    merged = len(rows) + torch.tensor(segments.offsets(cut)[:-1], device=device)
    targets = torch.where(kept, kept.cumsum(0) - 1, merged[segments.segment_ids(lengths, device)])
    order = segments.interleaving([counts, cut], device)
    places = segments.inverted(order)[targets]
    return PruneDecision(
        [count + one for count, one in zip(counts, cut, strict=True)],
        torch.cat([rows, rows.new_full((sum(cut),), -1)])[order],
        places,
        _shares(importance, places, len(order)),
    )


def join(importance: Tensor, lengths: Sequence[int], goes_to: Tensor) -> PruneDecision:
    """Let each token join the one whose row `goes_to` [total] names; those that name themselves stay.

    A token that others join becomes their mean, weighted by importance, and keeps its place.

    >>> kept = join(torch.tensor([0.5, 0.1, 0.1, 0.3]), [4], torch.tensor([0, 3, 3, 3]))
    >>> kept.lengths, kept.positions.tolist(), kept.places.tolist()
    ([2], [0, 3], [0, 1, 1, 1])
    """
    stays = goes_to == torch.arange(len(goes_to), device=goes_to.device)
    counts = segments.pad(stays, lengths).sum(1).tolist()
    rows = segments.rows_of(stays, sum(counts))
    places = (stays.cumsum(0) - 1)[goes_to]
    return PruneDecision(counts, rows, places, _shares(importance, places, len(rows)))


def means(tokens: Tensor, places: Tensor, shares: Tensor, number: int) -> Tensor:
    """The tokens that share a place become their weighted mean, [number, width]; no place is empty.

    Args:
        tokens: Packed, [total, width].
        places: Row that each token becomes part of, [total].
        shares: Its share, [total]; they sum to one over a place, so that a token alone stays bit for bit.
        number: Places.

    >>> means(torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([0, 1, 0]), torch.tensor([0.8, 1.0, 0.2]), 2).tolist()
    [[2.0], [2.0]]
    """
    # Tokens are read once and written once; weighting them and adding them up takes twice as long.
    order = places.argsort(stable=True)
    members = places.new_zeros(number).index_add(0, places, torch.ones_like(places))
    weights = shares.to(tokens.dtype)[order]
    return functional.embedding_bag(order, tokens, members.cumsum(0) - members, mode="sum", per_sample_weights=weights)


def above(score: Tensor, threshold: Tensor, min_keep: int) -> Tensor:
    """Which cells of a padded score exceed the threshold [batch], or are among the best; padding holds -1."""
    best = score.topk(min(min_keep, score.shape[1]), dim=1).indices
    stays = (score > threshold[:, None]) | (torch.zeros_like(score).scatter(1, best, 1.0) > 0)
    return stays & (score >= 0)


def _shares(importance: Tensor, places: Tensor, number: int) -> Tensor:
    """Each token's part of the importance in its place, [total]."""
    # A tiny floor: scores can underflow to zero, and a mean must stay a mean.
    weights = importance + 1e-20
    return weights / weights.new_zeros(number).index_add(0, places, weights)[places]
