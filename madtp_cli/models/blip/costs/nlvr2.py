"""FLOPs formula of BLIP for NLVR2: a pair of images and a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, image_tokens, norm
from madtp_cli.models.blip.costs import towers


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample is two images and one sentence."""
    words = np.asarray(lengths["text"])[:, None]
    images = np.full((len(words), 2), image_tokens(config.vision_config))
    return {
        "vision": (images, config.vision_config.num_hidden_layers),
        "text": (words, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: image tower, text encoder with cross-attention to both images, head."""
    images = counts["vision"].left[-1]
    width, image_width = config.text_config.hidden_size, config.vision_config.hidden_size

    def at_images(m: np.ndarray, block: int) -> np.ndarray:
        """Text tokens [samples, 1] attend to image tokens [samples, 2]; upper layers have a merge layer."""
        attention = cross_attention(m, images, width, image_width).sum(-1, keepdims=True)
        return attention + 2 * m * width**2 * (block >= config.merge_from) + norm(m, width)

    head = width**2 + 2 * width
    classifier = LayerCost("head", "classifier", np.full(len(images), head))
    return [*towers.vision(config, counts), *towers.text(config, counts, cross=at_images), classifier]
