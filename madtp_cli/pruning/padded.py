"""Pruning on a padded block: the rules of `dynamic` on [batch, longest] tensors with a mask, for export.

An exporter follows tensors, not lists of lengths, and knows no stable sort: here counts are tensors, and who is
more important is compared pair by pair. Everything is float32, as in `importance`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import density_peaks

#: Doublings by which a token follows its leaders: enough for chains of 4,096 tokens.
ROUNDS = 12


@dataclass(frozen=True)
class PaddedBlockInputs:
    """What a method sees of one block: `methods.Attended`, padded.

    `tokens` [batch, longest, width]; `class_attention` and `self_attention` [batch, longest], each summing to one
    over a sample; `logits` [batch, longest, atoms]; `prunable` [batch, longest] is true where a token may go.
    What stands elsewhere counts for nothing.
    """

    tokens: Tensor
    class_attention: Tensor
    self_attention: Tensor
    logits: Tensor
    prunable: Tensor


@dataclass(frozen=True)
class PaddedPruneDecision:
    """Where the prunable tokens go: `places` [batch, longest] among the `counts` [batch] that a sample has afterwards.

    Tokens of one place become their mean, weighted by `importance` [batch, longest].
    """

    places: Tensor
    counts: Tensor
    importance: Tensor


def normalise(score: Tensor, real: Tensor) -> Tensor:
    """Divide a non-negative score by its sum over each sample's real tokens; 0 elsewhere.

    >>> normalise(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])).tolist()
    [[0.25, 0.75, 0.0]]
    """
    score = score.float() * real
    total = score.sum(1, keepdim=True)
    even = real / real.sum(1, keepdim=True).clamp_min(1)
    return torch.where(total > 0, score / total.clamp_min(1e-30), even)


def place_peaks(
    seen: PaddedBlockInputs, threshold_scale: float, *, temperature: float = 1.0, min_keep: int = 1
) -> PaddedPruneDecision:
    """Where `dynamic.prune_peaks` puts each token; arguments as there."""
    real = seen.prunable
    importance = _importance(seen, _dictionary_attention(seen, temperature))
    leader, distinct, leads_itself = nearest_more_important(seen.tokens, importance, real)
    score = importance.sqrt() * distinct
    threshold = threshold_scale * (score.square().sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1)).sqrt()
    ranked = score.masked_fill(leads_itself, float("inf"))
    stays = _above(ranked, threshold, real, min_keep)
    own = torch.arange(real.shape[1], device=real.device).expand_as(leader)
    goal = torch.where(stays, own, leader)
    for _ in range(ROUNDS):
        goal = goal.gather(1, goal)
    rank = stays.long().cumsum(1) - 1
    return PaddedPruneDecision(rank.gather(1, goal), stays.sum(1), importance)


def place_important(
    seen: PaddedBlockInputs, threshold_scale: float, *, temperature: float = 1.0, min_keep: int = 1
) -> PaddedPruneDecision:
    """Where `dynamic.prune_important` puts each token; those that go share the last place of their sample."""
    real, whole = seen.prunable, seen.prunable.sum(1)
    attention = _dictionary_attention(seen, temperature)
    importance = _importance(seen, attention)
    threshold = threshold_scale * (importance[:, None, :] @ attention).squeeze(1).amin(-1)
    stays = _above(importance, threshold[:, None], real, min_keep)
    # Merging one saves nothing. (No torch.where: onnxruntime has none for truths.)
    stays = stays | ((stays.sum(1) == whole - 1)[:, None] & real)
    counts = stays.sum(1)
    rank = stays.long().cumsum(1) - 1
    return PaddedPruneDecision(torch.where(stays, rank, counts[:, None]), counts + (counts < whole), importance)


def nearest_more_important(tokens: Tensor, importance: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's leader, how distinct it is from it, and whether it leads itself: `peaks.leaders`, [batch, longest].

    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]]])
    >>> leader, distinct, _ = nearest_more_important(tokens, torch.tensor([[0.2, 0.5, 0.3]]), torch.ones(1, 3, dtype=torch.bool))
    >>> leader.tolist(), distinct.tolist()
    ([[1, 1, 1]], [[1.0, 2.0, 0.0]])
    """
    directions = functional.normalize(tokens[:, :, :: density_peaks.spacing(tokens.shape[2])].float(), dim=-1)
    leads = _beats(importance) & real[:, None, :]
    cosine, leader = (directions @ directions.transpose(1, 2)).masked_fill(~leads, -1.0).max(2)
    own = torch.arange(real.shape[1], device=real.device).expand_as(leader)
    alone = ~leads.any(2)
    distinct = (1 - cosine).clamp_min(0)
    return torch.where(alone, own, leader), distinct, alone & real


def gathered(tokens: Tensor, weights: Tensor, places: Tensor, longest: int) -> Tensor:
    """Tokens that share a place become their mean; [batch, longest, width], 0 in a place that nobody takes.

    Args:
        tokens: [batch, tokens, width].
        weights: [batch, tokens], 0 for what is to vanish.
        places: [batch, tokens], each below `longest`.
        longest: Places of each sample.

    >>> tokens, places = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[0, 1, 1]])
    >>> gathered(tokens, torch.tensor([[1.0, 1.0, 3.0]]), places, 2).tolist()
    [[[1.0], [3.5]]]
    """
    batch, width = tokens.shape[0], tokens.shape[2]
    shares = weights / summed(weights, places, longest).gather(1, places).clamp_min(1e-30)
    rows = places + longest * torch.arange(batch, device=places.device)[:, None]
    empty = tokens.new_zeros(batch * longest, width)
    sums = empty.index_put((rows.flatten(),), (shares[:, :, None].to(tokens.dtype) * tokens).flatten(0, 1), True)
    return sums.unflatten(0, (batch, longest))


def summed(numbers: Tensor, places: Tensor, longest: int) -> Tensor:
    """Sums of the numbers [batch, tokens] that share a place, [batch, longest]."""
    return numbers.new_zeros(numbers.shape[0], longest).scatter_add(1, places, numbers)


def _dictionary_attention(seen: PaddedBlockInputs, temperature: float) -> Tensor:
    """Each atom's attention over a sample's tokens, [batch, longest, atoms]; 0 where none is."""
    # Finite, or a sample without a token would hold NaN.
    logits = (seen.logits.float() / temperature).masked_fill(~seen.prunable[:, :, None], -1e30)
    return logits.softmax(1) * seen.prunable[:, :, None]


def _importance(seen: PaddedBlockInputs, attention: Tensor) -> Tensor:
    """Token importance score: the mean of the three, [batch, longest]."""
    said = normalise(attention.amax(-1), seen.prunable)
    return (seen.class_attention + seen.self_attention + said) / 3


def _above(score: Tensor, threshold: Tensor, real: Tensor, min_keep: int) -> Tensor:
    """Which real tokens exceed the threshold [batch, 1], or are among the best, bool [batch, longest]."""
    better = (_beats(score.masked_fill(~real, -1.0))).sum(2)
    return ((score > threshold) | (better < min_keep)) & real


def _beats(score: Tensor) -> Tensor:
    """Whether, for each token, each other one is before it: higher, or as high and earlier; [batch, own, others]."""
    places = torch.arange(score.shape[1], device=score.device)
    own, other = score[:, :, None], score[:, None, :]
    return (other > own) | ((other == own) & (places[None, :] < places[:, None]))
