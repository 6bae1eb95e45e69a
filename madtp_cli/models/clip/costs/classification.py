"""FLOPs formula of CLIP for zero-shot classification: an image; the texts of the classes are counted separately."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths, TokenCounts
from madtp_cli.flops.parts import image_tokens
from madtp_cli.models.clip.costs import retrieval

#: The texts of classes attend to no image; a text run states its samples by the tokens of this tower.
MEMORY = "vision"


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of the image tower and its number of blocks; a sample is one image."""
    images = np.full((len(lengths["images"]), 1), image_tokens(config.vision_config))
    return {"vision": (images, config.vision_config.num_hidden_layers)}


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer of the image tower."""
    return retrieval.vision(config, counts)


def text_run(config: Any, run: TextRun, memory: np.ndarray) -> int:
    """Return the multiply-adds of encoding the texts of classes, all texts together."""
    counts = {"text": TokenCounts.of(list(run.blocks), 1)}
    return int(sum(layer.flops.sum() for layer in retrieval.text(config, counts)))
