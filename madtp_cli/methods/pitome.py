"""`--method pitome`: similar tokens merge in pairs if there are many of their kind; rare tokens are protected.

Source: Tran et al., "Accelerating Transformers with Spectrum-Preserving Token Merging", arXiv:2405.16148. As the
authors run BLIP, tokens are compared after self-attention, attention does not depend on the size of merged tokens, and
the margin falls from block to block. Difference: all blocks merge, theirs all but the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from madtp_cli.methods import SIZES, BlockInputs, Parameters, Preset, PruneDecision, Rule, TokenSizes
from madtp_cli.pruning import energy, ranking

NEEDS = frozenset({SIZES})
PRESET = Preset(unpruned=("text",))
MERGED_TOKENS = 0


@dataclass(frozen=True)
class PitomeParameters(Parameters):
    """Parameters of this method.

    Attributes:
        margin: Cosine above which two tokens are similar in the first block. It falls evenly to 0.
    """

    LEAST_SHARE: ClassVar[float] = 0.5

    margin: float = 0.9


PARAMETERS = PitomeParameters


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Merge the pairs of highest energy; a merged token is the mean of the original tokens that it stands for."""
    mask = inputs.mask
    cosine = energy.cosines(inputs.token_values())
    margin = rule.parameters.margin * (1 - rule.block / rule.blocks)
    pairs = energy.merged_pairs(mask, ranking.kept_share(rule.threshold_scale), rule.min_keep)
    goes_to = energy.join_pairs(cosine, energy.energy(cosine, mask, margin), mask, pairs, exportable=inputs.exportable)
    return PruneDecision(goes_to, inputs.needed(SIZES))


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: Parameters) -> np.ndarray:
    """Return the multiply-adds of the cosines of all pairs of tokens."""
    return tokens**2 * sizes.width
