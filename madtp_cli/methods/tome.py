"""`--method tome`: in every block, the same number of tokens joins its most similar token (bipartite soft matching).

Similarity is the cosine of the attention keys. A token is attended to in proportion to the number of tokens it stands
for. Source: Bolya et al., "Token Merging: Your ViT But Faster", arXiv:2210.09461.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from madtp_cli.methods import (
    KEY_METRIC,
    ORDER,
    SIZES,
    BlockInputs,
    Parameters,
    Preset,
    PruneDecision,
    Rule,
    TokenSizes,
)
from madtp_cli.pruning import bipartite_matching

NEEDS = frozenset({KEY_METRIC, SIZES, ORDER})
PRESET = Preset(unpruned=("text",))
MERGED_TOKENS = 0


@dataclass(frozen=True)
class TomeParameters(Parameters):
    """Parameters of this method."""

    LEAST_SHARE: ClassVar[float] = 0.5

    proportional: bool = True


PARAMETERS = TomeParameters


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Merge the most similar pairs; a merged token is the mean of the original tokens that it stands for."""
    mask, sizes = inputs.mask, inputs.needed(SIZES)
    original = (sizes * mask).sum(1)
    number = bipartite_matching.merged_tokens(original, rule.threshold_scale, rule.block)
    number = number.minimum((mask.sum(1) - rule.min_keep).clamp_min(0))
    matching = bipartite_matching.match(
        inputs.needed(KEY_METRIC), inputs.needed(ORDER), mask, number, exportable=inputs.exportable
    )
    return PruneDecision(matching.goes_to, sizes, order=matching.order)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: Parameters) -> np.ndarray:
    """Return the multiply-adds of the cosines between both sets of tokens."""
    return (tokens // 2) * (tokens - tokens // 2) * sizes.head_width
