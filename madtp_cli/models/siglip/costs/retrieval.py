"""FLOPs formula of SigLIP: an image with its pooling, a text with its padding, and their similarity."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, feed_forward, norm, patches, pre_norm_blocks
from madtp_cli.models.siglip.family import image_tokens

#: Protected tokens of each tower: none of an image; the last position of a text.
PROTECTED = {"vision": 0, "text": 1}


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample is one image and one text."""
    words = np.asarray(lengths["text"])[:, None]
    return {
        "vision": (np.full_like(words, image_tokens(config.vision_config)), config.vision_config.num_hidden_layers),
        "text": (words, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: both towers, the pooling, the head of texts, the product of the embeddings."""
    samples = len(counts["vision"].entered[0])
    similarity = LayerCost("head", "similarity", np.full(samples, config.vision_config.hidden_size))
    return [*vision(config, counts), *text(config, counts), similarity]


def vision(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the image tower; the final norm applies to all tokens, and the pooling has one query."""
    tower, entered, left = config.vision_config, counts["vision"].entered[0], counts["vision"].left[-1]
    width, one = tower.hidden_size, np.ones_like(left)
    pooled = norm(left, width) + cross_attention(one, left, width, width)
    pooled = pooled + norm(one, width) + feed_forward(one, width, tower.intermediate_size)
    return [
        LayerCost("vision", "patches", patches(entered + 1, tower).sum(-1)),
        *_blocks("vision", tower, config, counts),
        LayerCost("vision", "pooling", pooled.sum(-1)),
    ]


def text(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the text tower; the final norm applies to all tokens."""
    tower, left = config.text_config, counts["text"].left[-1]
    head = norm(left, tower.hidden_size) + tower.hidden_size * tower.projection_size
    return [*_blocks("text", tower, config, counts), LayerCost("text", "embedding", head.sum(-1))]


def _blocks(name: str, tower: Any, config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the pre-norm blocks."""
    return pre_norm_blocks(name, tower, counts[name], config.madtp, PROTECTED[name], pooled=name == "vision")
