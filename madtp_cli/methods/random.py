"""`--method random`: keep a share of the tokens by chance; the others become one token.

A method that is no better than this has learned nothing about tokens. The choice depends on the number of a token
alone, so that it is the same in every run and in an exported model.
"""

from __future__ import annotations

import numpy as np

from madtp_cli.methods import BlockInputs, Parameters, Preset, PruneDecision, Rule, TokenSizes
from madtp_cli.pruning import merging, ranking

NEEDS = frozenset[str]()
PARAMETERS = Parameters
PRESET = Preset(unpruned=("text",))
MERGED_TOKENS = 1
#: Multiplier and modulus of the generator that turns the number of a token into its score.
MULTIPLIER, MODULUS = 40_503, 65_536


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep the same share of every sample's tokens."""
    number = inputs.mask.long().cumsum(1) + 97 * rule.block
    score = (number * number * MULTIPLIER % MODULUS).float() / MODULUS
    count = ranking.kept_count(inputs.mask, ranking.kept_share(rule.threshold_scale), rule.min_keep)
    kept = (ranking.ranks(score, inputs.mask, exportable=inputs.exportable) < count[:, None]) & inputs.mask
    return merging.merge_into_one(kept, inputs.mask.float(), inputs.mask)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: Parameters) -> np.ndarray:
    """Drawing numbers needs no multiply-adds."""
    return np.zeros_like(tokens)
