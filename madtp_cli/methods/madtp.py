"""`--method madtp`, the default: keep tokens that are important and distinct; each pruned token joins a similar one.

Differences from `madtp_paper` (`examples/ablation.py` prints what each is worth):

* A token counts for its importance and for its distance from the most similar more important token.
* The dictionary's attention is sharper: its temperature is 0.2.
* A pruned token joins the most similar kept token, instead of all of them becoming one.
* A token is attended to in proportion to the number of tokens it stands for, so a model can still count.
* The text tower is not pruned, because each of its few tokens carries much information.
* It costs little: every second block prunes, received attention comes from 32 queries, and tokens are compared by
  64 of their numbers.
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
from madtp_cli.pruning import density_peaks, importance, mag, thresholds

NEEDS = frozenset({CLASS_ATTENTION, RECEIVED_ATTENTION, DICTIONARY})
PRESET = Preset(every=2, unpruned=("text",))
MERGED_TOKENS = 0


@dataclass(frozen=True)
class MadtpParameters(Parameters):
    """Parameters of this method.

    Attributes:
        temperature: Divides the dictionary logits; values below 1 sharpen the attention.
        compared_width: Numbers of a token that are compared at most.
    """

    proportional: bool = True
    queries: int = 32
    temperature: float = 0.2
    compared_width: int = 64


PARAMETERS = MadtpParameters


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep tokens whose score exceeds the threshold; each of the others joins its nearest more important token.

    The score is the root of the importance times the distinctness (see `density_peaks`). The threshold is the
    threshold scale times the quadratic mean of the sample's scores: an image of many different things keeps more
    tokens than an empty one.
    """
    parameters, mask = rule.parameters, inputs.mask
    attention = mag.dictionary_attention(inputs.dictionary_logits, mask, parameters.temperature)
    weight = importance.token_importance(inputs.class_attention, inputs.received_attention, attention, mask)
    values = inputs.token_values(density_peaks.spacing(inputs.tokens.shape[-1], parameters.compared_width))
    score, nearest = density_peaks.distinct_importance(values, weight, mask, exportable=inputs.exportable)
    threshold = rule.threshold_scale * thresholds.quadratic_mean(score, mask)
    # The most important token always stays: the chains of nearest more important tokens end there.
    score = score.masked_fill(density_peaks.is_most_important(nearest, mask), float("inf"))
    kept = thresholds.keep_above(score, threshold, mask, rule.min_keep)
    longest = density_peaks.MOST_TOKENS if inputs.exportable else mask.shape[1]
    return PruneDecision(density_peaks.resolve_targets(nearest, kept, longest), weight)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: MadtpParameters) -> np.ndarray:
    """Return the multiply-adds of the cosines among the tokens."""
    step = density_peaks.spacing(sizes.width, parameters.compared_width)
    return density_peaks.comparisons(tokens) * len(range(0, sizes.width, step))
