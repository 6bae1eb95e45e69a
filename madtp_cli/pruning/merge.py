"""From a threshold to the tokens that go on: keep those above it, merge the others into one."""

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
    token, the last of its sample. `lengths` counts both. `importance` is that of the given tokens.
    """

    tokens: Tensor
    lengths: list[int]
    positions: Tensor
    importance: Tensor


def keep_tokens(
    tokens: Tensor, importance: Tensor, lengths: Sequence[int], threshold: Tensor, min_keep: int = 1
) -> Kept:
    """Keep each sample's tokens above its threshold and merge the others into one.

    Samples keep different numbers of tokens; no sample's result depends on another's.

    Args:
        tokens: Packed hidden states without the pinned tokens, [total, width].
        importance: Token importance score, [total]; sums to 1 over each sample.
        lengths: Tokens of each sample, in packing order.
        threshold: Lowest score worth keeping, [batch], from `pruning_threshold`.
        min_keep: Each sample's best tokens that stay whatever the threshold.

    Returns:
        The kept tokens in their original order, then the merged token: the mean of the
        pruned ones weighted by importance. Where only one token would go, all stay,
        because merging one saves nothing.

    Source: MADTP (DTP module), arXiv:2403.02991; order and own counts are ours.

    >>> tokens = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    >>> importance = torch.tensor([0.5, 0.1, 0.1, 0.3])
    >>> kept = keep_tokens(tokens, importance, lengths=[4], threshold=torch.tensor([0.25]))
    >>> kept.tokens.flatten().tolist(), kept.lengths, kept.positions.tolist()
    ([1.0, 8.0, 3.0], [3], [0, 3, -1])
    """
    stays = segments.unpad(_stays(segments.pad(importance, lengths, -1.0), threshold, min_keep, lengths), lengths)
    # A tiny floor: scores can underflow to zero, and the mean of the pruned must stay a mean.
    lost = segments.pad(torch.where(stays, 0.0, importance + 1e-20), lengths)
    shares = lost / lost.sum(1, keepdim=True).clamp_min(1e-30)
    merged = (shares[:, None].to(tokens.dtype) @ segments.pad(tokens, lengths)).squeeze(1)
    counts = segments.pad(stays.int(), lengths).sum(1).tolist()  # the layer's one host synchronisation
    cut = [int(count < length) for count, length in zip(counts, lengths, strict=True)]
    rows = torch.nonzero(stays).squeeze(1)
    merges = torch.tensor(cut, dtype=torch.bool, device=tokens.device)
    nowhere = rows.new_full((sum(cut),), -1)
    return Kept(
        segments.interleave([tokens[rows], merged[merges]], [counts, cut]),
        [count + one for count, one in zip(counts, cut, strict=True)],
        segments.interleave([rows, nowhere], [counts, cut]),
        importance,
    )


def _stays(importance: Tensor, threshold: Tensor, min_keep: int, lengths: Sequence[int]) -> Tensor:
    """Which cells of the padded importance stay, bool [batch, longest]; padding holds -1."""
    real = importance >= 0
    stays = (importance > threshold[:, None]) & real
    best = importance.topk(min(min_keep, importance.shape[1]), dim=1).indices
    stays = (stays | (torch.zeros_like(importance).scatter(1, best, 1.0) > 0)) & real
    one_lost = stays.sum(1) == torch.tensor(lengths, device=importance.device) - 1
    return torch.where(one_lost[:, None], real, stays)
