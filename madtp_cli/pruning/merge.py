"""From a threshold to the tokens that go on: keep those above it, merge the others into one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import segments


@dataclass(frozen=True)
class Kept:
    """Tokens that go on, packed.

    `positions` [total] says which row of the given tokens each one was; -1 is a merged
    token, the last of its sample. `lengths` counts both, `stayed` the kept ones alone. `importance`
    is that of the given tokens; `sizes` [total] says how many original tokens each one stands for.
    """

    tokens: Tensor
    lengths: list[int]
    positions: Tensor
    importance: Tensor
    sizes: Tensor
    stayed: list[int]


def keep_tokens(
    tokens: Tensor,
    importance: Tensor,
    lengths: Sequence[int],
    threshold: Tensor,
    min_keep: int = 1,
    sizes: Tensor | None = None,
    likeness: float = math.inf,
) -> Kept:
    """Keep each sample's tokens above its threshold and merge the others.

    Samples keep different numbers of tokens; no sample's result depends on another's.

    Args:
        tokens: Packed hidden states without the pinned tokens, [total, width].
        importance: Token importance score, [total]; sums to 1 over each sample.
        lengths: Tokens of each sample, in packing order.
        threshold: Lowest score worth keeping, [batch], from `pruning_threshold`.
        min_keep: Each sample's best tokens that stay whatever the threshold.
        sizes: How many original tokens each one stands for, [total]; 1 unless given.
        likeness: A pruned token whose cosine with some kept token is above this joins the one it
            is most like; infinity lets none join.

    Returns:
        The kept tokens in their original order, then one merged token of the pruned that joined
        none, if there are any. What is merged is the mean weighted by importance. Where only
        one token would go, all stay, because merging one saves nothing.

    Source: MADTP (DTP module), arXiv:2403.02991; order, own counts and joining are ours.

    >>> tokens = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    >>> importance = torch.tensor([0.5, 0.1, 0.1, 0.3])
    >>> kept = keep_tokens(tokens, importance, lengths=[4], threshold=torch.tensor([0.25]))
    >>> kept.tokens.flatten().tolist(), kept.lengths, kept.positions.tolist()
    ([1.0, 8.0, 3.0], [3], [0, 3, -1])
    """
    stays = segments.unpad(_stays(segments.pad(importance, lengths, -1.0), threshold, min_keep, lengths), lengths)
    sample = segments.segment_ids(lengths, tokens.device)
    counts = segments.pad(stays.int(), lengths).sum(1).tolist()
    rows, lost = (torch.nonzero(chosen).squeeze(1) for chosen in (stays, ~stays))
    goes_to = len(rows) + sample[lost]  # the merged token of its sample ...
    if math.isfinite(likeness) and len(lost):
        gone = [length - count for length, count in zip(lengths, counts, strict=True)]
        nearest, cosine = _most_like(tokens, lost, gone, rows, counts)
        goes_to = torch.where(cosine > likeness, nearest, goes_to)  # ... or the kept one it is most like
    targets = torch.cat([torch.arange(len(rows), device=tokens.device), goes_to])
    sources = torch.cat([rows, lost])
    # A tiny floor: scores can underflow to zero, and a mean must stay a mean.
    weights = (importance + 1e-20)[sources]
    total = weights.new_zeros(len(rows) + len(lengths)).index_add(0, targets, weights)
    shares = (weights / total[targets])[:, None].to(tokens.dtype)
    joined = tokens.new_zeros(len(total), tokens.shape[1]).index_add(0, targets, shares * tokens[sources])
    given = sizes if sizes is not None else torch.ones_like(importance)
    grown = given.new_zeros(len(total)).index_add(0, targets, given[sources])
    cut = (total[len(rows) :] > 0).int().tolist()  # who joined is only known on the device: a second look from the host
    merges = len(rows) + torch.nonzero(total[len(rows) :] > 0).squeeze(1)
    nowhere = rows.new_full((len(merges),), -1)
    return Kept(
        segments.interleave([joined[: len(rows)], joined[merges]], [counts, cut]),
        [count + one for count, one in zip(counts, cut, strict=True)],
        segments.interleave([rows, nowhere], [counts, cut]),
        importance,
        segments.interleave([grown[: len(rows)], grown[merges]], [counts, cut]),
        counts,
    )


def _most_like(
    tokens: Tensor, lost: Tensor, gone: Sequence[int], rows: Tensor, counts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """For each lost token the kept one of its sample that it is most like, and their cosine, [lost]."""
    direction = functional.normalize(tokens.detach(), dim=1)
    if len(counts) == 1:
        cosine, nearest = (direction[lost] @ direction[rows].transpose(0, 1)).max(1)
        return nearest, cosine
    alike = segments.pad(direction[lost], gone) @ segments.pad(direction[rows], counts).transpose(1, 2)
    if not segments.is_uniform(counts):
        alike = alike.masked_fill(~segments.real_rows(counts, tokens.device)[:, None], -2.0)
    cosine, nearest = (segments.unpad(best, gone) for best in alike.max(2))
    first = torch.tensor(segments.offsets(counts)[:-1], device=tokens.device)
    return nearest + torch.repeat_interleave(first, torch.tensor(gone, device=tokens.device)), cosine


def _stays(importance: Tensor, threshold: Tensor, min_keep: int, lengths: Sequence[int]) -> Tensor:
    """Which cells of the padded importance stay, bool [batch, longest]; padding holds -1."""
    real = importance >= 0
    stays = (importance > threshold[:, None]) & real
    best = importance.topk(min(min_keep, importance.shape[1]), dim=1).indices
    stays = (stays | (torch.zeros_like(importance).scatter(1, best, 1.0) > 0)) & real
    one_lost = stays.sum(1) == torch.tensor(lengths, device=importance.device) - 1
    return torch.where(one_lost[:, None], real, stays)
