"""`--method evit`: keep the tokens that the class token attends to most; the others become one fused token.

The fused token is the sum of the other tokens, each times the class token's attention to it. Source: Liang et al., "Not
All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations", arXiv:2202.07800. Difference
from the paper: every block prunes by the same share, not only three blocks, because three blocks cannot reach a budget
of a fifth.
"""

from __future__ import annotations

import numpy as np
import torch

from madtp_cli.methods import (
    MEAN_CLASS_ATTENTION,
    BlockInputs,
    Parameters,
    Preset,
    PruneDecision,
    Rule,
    TokenSizes,
)
from madtp_cli.pruning import merging, ranking

NEEDS = frozenset({MEAN_CLASS_ATTENTION})
PARAMETERS = Parameters
PRESET = Preset(unpruned=("text",))
MERGED_TOKENS = 1


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep the same share of every sample's tokens; the fused token of an earlier block counts as a token."""
    attention, mask = inputs.needed(MEAN_CLASS_ATTENTION).detach(), inputs.mask
    kept = ranking.highest_share(attention, mask, rule.threshold_scale, rule.min_keep, exportable=inputs.exportable)
    index = torch.arange(mask.shape[1], device=mask.device)
    return PruneDecision(
        torch.where(kept, index, merging.MERGED), torch.where(kept, 1.0, attention.float()), averaged=False
    )


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: Parameters) -> np.ndarray:
    """Choosing tokens needs no multiply-adds; the attention of the class token is in `NEEDS`."""
    return np.zeros_like(tokens)
