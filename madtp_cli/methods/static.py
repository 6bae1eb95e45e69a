"""`--method static`: the score of `madtp`, but every sample keeps the same number of tokens.

The difference to `madtp` is what the dynamic threshold is worth.
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
from madtp_cli.pruning import density_peaks, importance, mag, ranking

NEEDS = frozenset({CLASS_ATTENTION, RECEIVED_ATTENTION, DICTIONARY})
PRESET = Preset(every=2, unpruned=("text",))
MERGED_TOKENS = 0


@dataclass(frozen=True)
class StaticParameters(Parameters):
    """Parameters of this method, which are those of `madtp`.

    Attributes:
        temperature: Divides the dictionary logits; values below 1 sharpen the attention.
        compared_width: Numbers of a token that are compared at most.
    """

    proportional: bool = True
    queries: int = 32
    temperature: float = 0.2
    compared_width: int = 64


PARAMETERS = StaticParameters


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep the tokens with the highest scores; each of the others joins its nearest more important kept token."""
    parameters, mask = rule.parameters, inputs.mask
    attention = mag.dictionary_attention(inputs.dictionary_logits, mask, parameters.temperature)
    weight = importance.token_importance(inputs.class_attention, inputs.received_attention, attention, mask)
    values = inputs.token_values(density_peaks.spacing(inputs.tokens.shape[-1], parameters.compared_width))
    score, nearest = density_peaks.distinct_importance(values, weight, mask, exportable=inputs.exportable)
    # The chains of nearest more important tokens end at the most important token, so it always stays.
    score = score.masked_fill(density_peaks.is_most_important(nearest, mask), float("inf"))
    count = ranking.kept_count(mask, ranking.kept_share(rule.threshold_scale), rule.min_keep)
    kept = (ranking.ranks(score, mask, exportable=inputs.exportable) < count[:, None]) & mask
    longest = density_peaks.MOST_TOKENS if inputs.exportable else mask.shape[1]
    return PruneDecision(density_peaks.resolve_targets(nearest, kept, longest), weight)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: StaticParameters) -> np.ndarray:
    """Return the multiply-adds of the cosines among the tokens."""
    step = density_peaks.spacing(sizes.width, parameters.compared_width)
    return density_peaks.comparisons(tokens) * len(range(0, sizes.width, step))
