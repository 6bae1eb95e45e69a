"""Dynamic token pruning as published: the mean of three scores, one merged token, both towers."""

from __future__ import annotations

import numpy as np

from madtp_cli.methods import (
    BlockInputs,
    PaddedBlockInputs,
    PaddedPruneDecision,
    Preset,
    PruneDecision,
    Rule,
    pruned_by,
)
from madtp_cli.pruning import dynamic, padded

PRESET = Preset(proportional=False)
MERGED_TOKENS = 1


def keep(attended: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep the tokens above the threshold; the others become one token."""
    return pruned_by(dynamic.prune_important, attended, rule)


def place(seen: PaddedBlockInputs, rule: Rule) -> PaddedPruneDecision:
    """As `keep`, on a padded block."""
    return padded.place_important(seen, rule.threshold_scale, temperature=rule.temperature, min_keep=rule.min_keep)


def cost(tokens: np.ndarray, width: int, atoms: int) -> np.ndarray:
    """The mean importance that each atom sees."""
    return tokens * atoms
