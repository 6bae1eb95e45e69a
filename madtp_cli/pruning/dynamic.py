"""DTP: importance from class, self and dictionary attention, against a threshold from both.

Source: MADTP, arXiv:2403.02991. Ours: every score sums to one, a budget knob scales the
threshold (the paper tunes the temperature, which saturates), and each sample keeps its own count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from madtp_cli.pruning.importance import dictionary_attention, dictionary_score, pruning_threshold
from madtp_cli.pruning.merge import Kept, keep_tokens


def prune(
    tokens: Tensor,
    lengths: Sequence[int],
    scores: tuple[Tensor, Tensor],
    logits: Tensor,
    knob: float,
    *,
    temperature: float = 1.0,
    min_keep: int = 1,
    likeness: float = math.inf,
    sizes: Tensor | None = None,
) -> Kept:
    """Keep the tokens whose importance exceeds the sample's threshold; merge the others.

    Args:
        tokens: Packed prunable tokens, [total, width].
        lengths: Tokens of each sample.
        scores: Class attention and self attention received, each [total] and summing to one per sample.
        logits: Against the dictionary, [total, atoms].
        knob: Budget knob s; 0 keeps everything.
        temperature: Sharpens the dictionary's attention below 1.
        min_keep: Tokens that stay per sample.
        likeness: Cosine above which a pruned token joins the kept one it is most like.
        sizes: How many original tokens each one stands for, [total].
    """
    attention = dictionary_attention(logits, lengths, temperature)
    importance = torch.stack([*scores, dictionary_score(attention, lengths)]).mean(0)
    threshold = pruning_threshold(attention, importance, lengths, knob)
    return keep_tokens(tokens, importance, lengths, threshold, min_keep, sizes, likeness)
