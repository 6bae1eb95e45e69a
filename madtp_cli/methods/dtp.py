"""Dynamic token pruning: importance from class, self and dictionary attention against a threshold.

Source: MADTP, arXiv:2403.02991. Ours: every score sums to one, a budget knob scales the
threshold (the paper tunes the temperature, which saturates), and each sample keeps its own count.
"""

from __future__ import annotations

from madtp_cli.methods import Attended, Kept, Rule
from madtp_cli.pruning.importance import dictionary_attention, dictionary_score, pruning_threshold
from madtp_cli.pruning.merge import keep_tokens


def keep(attended: Attended, rule: Rule) -> Kept:
    """Keep the tokens whose importance exceeds the sample's threshold; merge the others."""
    attention = dictionary_attention(attended.logits, attended.lengths, rule.temperature)
    dictionary = dictionary_score(attention, attended.lengths)
    importance = (attended.class_attention + attended.self_attention + dictionary) / 3
    threshold = pruning_threshold(attention, importance, attended.lengths, rule.knob)
    return keep_tokens(attended.tokens, importance, attended.lengths, threshold, rule.min_keep)
