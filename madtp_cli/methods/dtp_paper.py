"""Dynamic token pruning as published: the mean of three scores, one merged token, both towers."""

from __future__ import annotations

import numpy as np

from madtp_cli.methods import Attended, Kept, Preset, Rule
from madtp_cli.pruning import dynamic

PRESET = Preset(proportional=False)
MERGED_TOKENS = 1


def keep(attended: Attended, rule: Rule) -> Kept:
    """Keep the tokens above the threshold; the others become one token."""
    return dynamic.prune_important(
        attended.tokens,
        attended.lengths,
        (attended.class_attention, attended.self_attention),
        attended.logits,
        rule.knob,
        temperature=rule.temperature,
        min_keep=rule.min_keep,
        sizes=attended.sizes,
    )


def cost(tokens: np.ndarray, width: int, atoms: int) -> np.ndarray:
    """The mean importance that each atom sees."""
    return tokens * atoms
