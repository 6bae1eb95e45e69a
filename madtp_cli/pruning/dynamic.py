"""DTP: importance from class, self and dictionary attention, against a threshold of each sample's own.

Source: MADTP, arXiv:2403.02991. Ours: every score sums to one, a budget knob scales the
threshold (the paper tunes the temperature, which saturates), and each sample keeps its own count.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from madtp_cli.pruning import density_peaks, segments
from madtp_cli.pruning.importance import dictionary_attention, dictionary_score, pruning_threshold
from madtp_cli.pruning.merging import PruneDecision, above, join, merge_others


def prune_important(
    lengths: Sequence[int],
    scores: tuple[Tensor, Tensor],
    logits: Tensor,
    threshold_scale: float,
    *,
    temperature: float = 1.0,
    min_keep: int = 1,
) -> PruneDecision:
    """The paper's rule: keep tokens whose importance exceeds the sample's threshold; merge the others into one.

    Args:
        lengths: Prunable tokens of each sample.
        scores: Class attention and self attention received, each [total] and summing to one per sample.
        logits: Against the dictionary, [total, atoms].
        knob: Budget knob s; 0 keeps everything.
        temperature: Sharpens the dictionary's attention below 1.
        min_keep: Tokens that stay per sample.
    """
    attention = dictionary_attention(logits, lengths, temperature)
    importance = _importance(scores, attention, lengths)
    threshold = pruning_threshold(attention, importance, lengths, threshold_scale)
    return merge_others(importance, lengths, threshold, min_keep)


def prune_peaks(
    lengths: Sequence[int],
    scores: tuple[Tensor, Tensor],
    logits: Tensor,
    threshold_scale: float,
    *,
    tokens: Tensor,
    rows: Tensor | None = None,
    temperature: float = 1.0,
    min_keep: int = 1,
) -> PruneDecision:
    """Keep tokens that are important and unlike any more important one; each of the others joins its leader.

    What counts is the root of importance times distinctness (see `peaks`), against the knob times its quadratic
    mean over the sample: a picture of many different things keeps more than an empty one. Arguments as above, and
    `tokens` [any, width], of which `rows` [total] are the prunable ones; all unless given.
    """
    importance = _importance(scores, dictionary_attention(logits, lengths, temperature), lengths)
    leader, distinct = density_peaks.nearest_more_important(tokens, importance, lengths, rows)
    leads_itself = leader == torch.arange(len(leader), device=leader.device)
    score = importance.detach().sqrt() * distinct
    padded = segments.pad(score, lengths, -1.0)
    real = torch.tensor(lengths, device=score.device)
    threshold = threshold_scale * quadratic_mean(padded.clamp_min(0), real.clamp_min(1))
    # The most important token stays whatever the rule says: the chains of leaders end there.
    ranked = padded.masked_fill(segments.pad(leads_itself, lengths, False), float("inf"))
    stays = segments.unpad(above(ranked, threshold, min_keep), lengths)
    goes_to = density_peaks.resolve_targets(leader, stays, max(lengths, default=0))
    return join(importance, lengths, goes_to)


def quadratic_mean(score: Tensor, count: Tensor) -> Tensor:
    """Root of the mean square of a padded score, [batch, longest] to [batch].

    >>> quadratic_mean(torch.tensor([[1.0, 7.0, 0.0]]), torch.tensor([2])).tolist()
    [5.0]
    """
    return (score.square().sum(1) / count).sqrt()


def _importance(scores: tuple[Tensor, Tensor], attention: Tensor, lengths: Sequence[int]) -> Tensor:
    """Token importance score: the mean of the three, [total]."""
    return torch.stack([*scores, dictionary_score(attention, lengths)]).mean(0)
