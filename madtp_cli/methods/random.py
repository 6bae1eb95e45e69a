"""`--method random`: keep a share of the tokens by chance; the others become one token.

A method that is no better than this has learned nothing about tokens. The choice depends on the numbers of the token
and of the block alone, so that it is the same in every run and in an exported model; `--seed` does not change it.
"""

from __future__ import annotations

import numpy as np

from madtp_cli.methods import BlockInputs, Parameters, Preset, PruneDecision, Rule, TokenSizes
from madtp_cli.pruning import merging, ranking

NEEDS = frozenset[str]()
PARAMETERS = Parameters
PRESET = Preset(unpruned=("text",))
MERGED_TOKENS = 1
#: Multiplier and modulus of the formula that turns the number of a token into its score, and what each block adds to
#: the number, so that it draws other tokens.
MULTIPLIER, MODULUS, PER_BLOCK = 40_503, 65_536, 97


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep the same share of every sample's tokens, drawn by their numbers."""
    number = inputs.mask.long().cumsum(1) + PER_BLOCK * rule.block
    score = (number * number * MULTIPLIER % MODULUS).float() / MODULUS
    kept = ranking.highest_share(score, inputs.mask, rule.threshold_scale, rule.min_keep, exportable=inputs.exportable)
    return merging.merge_into_one(kept, inputs.mask.float(), inputs.mask)


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: Parameters) -> np.ndarray:
    """The scores need no multiply-adds that fvcore counts."""
    return np.zeros_like(tokens)
