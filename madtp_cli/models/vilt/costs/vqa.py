"""FLOPs formula of ViLT for VQA: a question with its image; the answer costs nothing more."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.models.vilt.costs import stream


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of the stream."""
    return stream.tokens(config, lengths, 1)


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer."""
    width = config.vision_config.hidden_size
    return stream.costs(config, counts, width, 2 * width, len(config.answers or []))
