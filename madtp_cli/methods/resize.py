"""`--method resize`: make the image smaller, so that it has fewer patches, and prune nothing.

The simplest way to the same cost, which token pruning must beat. Only whole numbers of patches are
possible. So a part of the images gets the next larger size and the others the next smaller one, in the proportion that
gives the right mean.
"""

from __future__ import annotations

import numpy as np
import torch

from madtp_cli.methods import IMAGE, BlockInputs, ImageGrids, Parameters, Preset, PruneDecision, Rule, TokenSizes
from madtp_cli.pruning import ranking

NEEDS = frozenset({IMAGE})
PARAMETERS = Parameters
PRESET = Preset(unpruned=("vision", "text"))
MERGED_TOKENS = 0


def grids(side: int, rule: Rule) -> ImageGrids:
    """Return the two sizes of an image whose dense size is `side` x `side` patches.

    >>> grids(4, Rule(1.0))
    ImageGrids(larger=(3, 3), smaller=(2, 3), share=0.6666666666666666)
    """
    sizes = [(rows, columns) for rows in range(1, side + 1) for columns in (rows, rows + 1) if columns <= side]
    target = max(1.0, side**2 * ranking.kept_share(rule.threshold_scale))
    larger = next(size for size in sizes if size[0] * size[1] >= target)
    smaller = [size for size in sizes if size[0] * size[1] <= target][-1]
    above, below = larger[0] * larger[1], smaller[0] * smaller[1]
    return ImageGrids(larger, smaller, (target - below) / (above - below) if above > below else 1.0)


def keep(inputs: BlockInputs, rule: Rule) -> PruneDecision:
    """Keep all tokens."""
    index = torch.arange(inputs.mask.shape[1], device=inputs.mask.device)
    return PruneDecision(index.expand(inputs.mask.shape), inputs.mask.float())


def cost(tokens: np.ndarray, sizes: TokenSizes, parameters: Parameters) -> np.ndarray:
    """Resizing an image is a part of its preparation, which is not counted."""
    return np.zeros_like(tokens)
