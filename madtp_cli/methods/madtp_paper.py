"""`--method madtp-paper`: dynamic token pruning as published, in both towers.

Importance is the mean of three scores; the pruned tokens become one merged token. Source: MADTP, arXiv:2403.02991.
Two differences from the paper: each score sums to one, and the threshold scale multiplies the threshold. The paper
changes the temperature instead, which saturates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from madtp_cli.methods import (
    CLASS_ATTENTION,
    DICTIONARY,
    RECEIVED_ATTENTION,
    BlockInputs,
    Parameters,
    Preset,
    PruneDecision,
    Rule,
    TokenSizes,
)
from madtp_cli.pruning import importance, mag, merging, thresholds

NEEDS = frozenset({CLASS_ATTENTION, RECEIVED_ATTENTION, DICTIONARY})
PRESET = Preset()
MERGED_TOKENS = 1


@dataclass(frozen=True)
class PaperParameters(Parameters):
    """Parameters of this method.

    Attributes:
        temperature: Divides the dictionary logits; values below 1 sharpen the attention.
    """

    temperature: float = 1.0


PARAMETERS = PaperParameters


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep tokens whose importance exceeds the threshold; the others become one token."""
    mask = inputs.mask
    attention = mag.dictionary_attention(inputs.dictionary_logits, mask, rule.parameters.temperature)
    weight = importance.token_importance(inputs.class_attention, inputs.received_attention, attention, mask)
    threshold = rule.threshold_scale * thresholds.least_atom_mean(weight, attention)
    kept = thresholds.keep_above(weight, threshold, mask, rule.min_keep)
    return merging.merge_into_one(kept, weight, mask)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: PaperParameters) -> np.ndarray:
    """Return the multiply-adds of each atom's mean importance."""
    return tokens * sizes.atoms
