"""A pair of images and a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, image_tokens, norm
from madtp_cli.models.blip.costs import towers


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Two images and one sentence per sample."""
    words = np.asarray(lengths["text"])[:, None]
    images = np.full((len(words), 2), image_tokens(config.vision_config))
    return {
        "vision": (images, config.vision_config.num_hidden_layers),
        "text": (words, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Both images through the tower, the sentence looking at both in every layer, and the head."""
    seen = counts["vision"].left[-1]
    width, image_width = config.text_config.hidden_size, config.vision_config.hidden_size

    def look(m: np.ndarray, block: int) -> np.ndarray:
        """Text tokens [samples, 1] look at image tokens [samples, 2]; upper layers have a merge layer."""
        looks = cross_attention(m, seen, width, image_width).sum(-1, keepdims=True)
        return looks + 2 * m * width**2 * (block >= config.merge_from) + norm(m, width)

    head = width**2 + 2 * width
    classifier = LayerCost("head", "classifier", np.full(len(seen), head))
    return [*towers.vision(config, counts), *towers.text(config, counts, look=look), classifier]
