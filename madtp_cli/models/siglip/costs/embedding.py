"""FLOPs formula of SigLIP's image encoder alone: one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.models.siglip.costs import retrieval
from madtp_cli.models.siglip.family import image_tokens


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of the image tower and its number of blocks; a sample is one image."""
    images = np.full((len(lengths["images"]), 1), image_tokens(config.vision_config))
    return {"vision": (images, config.vision_config.num_hidden_layers)}


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer of the image tower."""
    return retrieval.vision(config, counts)
