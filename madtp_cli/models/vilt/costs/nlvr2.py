"""FLOPs formula of ViLT for NLVR2: a sentence with each image of a pair."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.models.vilt.costs import stream


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of the two runs of the stream."""
    return stream.tokens(config, lengths, 2)


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer."""
    width = 2 * config.vision_config.hidden_size
    return stream.costs(config, counts, width, width, 2)
