"""What becomes of the tokens that do not stay: one merged token, or each joins one that stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from madtp_cli.pruning import segments


@dataclass(frozen=True)
class Kept:
    """Tokens that go on, packed.

    `positions` [total] says which row of the given tokens each one was; -1 is a merged
    token, the last of its sample. `sizes` [total] says how many original tokens each one stands for.
    """

    tokens: Tensor
    lengths: list[int]
    positions: Tensor
    sizes: Tensor


def merge_others(
    tokens: Tensor,
    importance: Tensor,
    lengths: Sequence[int],
    threshold: Tensor,
    min_keep: int = 1,
    sizes: Tensor | None = None,
) -> Kept:
    """Keep each sample's tokens above its threshold and merge the others into one.

    Samples keep different numbers of tokens; no sample's result depends on another's.

    Args:
        tokens: Packed hidden states without the pinned tokens, [total, width].
        importance: Token importance score, [total]; sums to 1 over each sample.
        lengths: Tokens of each sample, in packing order.
        threshold: Lowest score worth keeping, [batch], from `pruning_threshold`.
        min_keep: Each sample's best tokens that stay whatever the threshold.
        sizes: How many original tokens each one stands for, [total]; 1 unless given.

    Returns:
        The kept tokens in their original order, then the mean of the others, weighted by
        importance. Where only one token would go, all stay, because merging one saves nothing.

    Source: MADTP (DTP module), arXiv:2403.02991; order and own counts are ours.

    >>> tokens = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    >>> importance = torch.tensor([0.5, 0.1, 0.1, 0.3])
    >>> kept = merge_others(tokens, importance, lengths=[4], threshold=torch.tensor([0.25]))
    >>> kept.tokens.flatten().tolist(), kept.lengths, kept.positions.tolist()
    ([1.0, 8.0, 3.0], [3], [0, 3, -1])
    """
    padded = segments.pad(importance, lengths, -1.0)
    stays = above(padded, threshold, min_keep)
    whole = torch.tensor(lengths, device=tokens.device)
    stays = torch.where((stays.sum(1) == whole - 1)[:, None], padded >= 0, stays)
    counts = stays.sum(1).tolist()
    kept = segments.unpad(stays, lengths)
    rows = segments.rows_of(kept, sum(counts))
    cut = [int(count < length) for count, length in zip(counts, lengths, strict=True)]
    merged = len(rows) + torch.tensor(segments.offsets(cut)[:-1], device=tokens.device)
    targets = torch.where(kept, kept.cumsum(0) - 1, merged[segments.segment_ids(lengths, tokens.device)])
    means, grown = _means(tokens, importance, sizes, targets, len(rows) + sum(cut))
    nowhere = rows.new_full((sum(cut),), -1)
    return Kept(
        segments.interleave([means[: len(rows)], means[len(rows) :]], [counts, cut]),
        [count + one for count, one in zip(counts, cut, strict=True)],
        segments.interleave([rows, nowhere], [counts, cut]),
        segments.interleave([grown[: len(rows)], grown[len(rows) :]], [counts, cut]),
    )


def join(
    tokens: Tensor,
    importance: Tensor,
    lengths: Sequence[int],
    goes_to: Tensor,
    sizes: Tensor | None = None,
) -> Kept:
    """Let each token join the one whose row `goes_to` [total] names; those that name themselves stay.

    A token that others join becomes their mean, weighted by importance, and keeps its place.

    >>> tokens = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    >>> kept = join(tokens, torch.tensor([0.5, 0.1, 0.1, 0.3]), [4], torch.tensor([0, 3, 3, 3]))
    >>> [round(token, 4) for token in kept.tokens.flatten().tolist()], kept.positions.tolist(), kept.sizes.tolist()
    ([1.0, 6.0], [0, 3], [1.0, 3.0])
    """
    stays = goes_to == torch.arange(len(goes_to), device=goes_to.device)
    counts = segments.pad(stays, lengths).sum(1).tolist()
    rows = segments.rows_of(stays, sum(counts))
    targets = (stays.cumsum(0) - 1)[goes_to]
    means, grown = _means(tokens, importance, sizes, targets, len(rows))
    return Kept(means, counts, rows, grown)


def above(score: Tensor, threshold: Tensor, min_keep: int) -> Tensor:
    """Which cells of a padded score exceed the threshold [batch], or are among the best; padding holds -1."""
    best = score.topk(min(min_keep, score.shape[1]), dim=1).indices
    stays = (score > threshold[:, None]) | (torch.zeros_like(score).scatter(1, best, 1.0) > 0)
    return stays & (score >= 0)


def _means(
    tokens: Tensor, importance: Tensor, sizes: Tensor | None, targets: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """Means of the tokens that share a target, weighted by importance, and how many tokens each stands for."""
    # A tiny floor: scores can underflow to zero, and a mean must stay a mean.
    weights = importance + 1e-20
    shares = weights / weights.new_zeros(groups).index_add(0, targets, weights)[targets]
    means = tokens.new_zeros(groups, tokens.shape[1]).index_add(0, targets, shares[:, None].to(tokens.dtype) * tokens)
    given = sizes if sizes is not None else torch.ones_like(importance)
    return means, given.new_zeros(groups).index_add(0, targets, given)
