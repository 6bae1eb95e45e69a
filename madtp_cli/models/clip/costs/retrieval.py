"""FLOPs formula of CLIP: an image, a text up to its end-of-text token, and their similarity."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import image_tokens, norm, patches, pre_norm_blocks

#: Protected tokens of each tower: [CLS]; a text's start and end.
PROTECTED = {"vision": 1, "text": 2}
#: Number of read-out tokens of each image or text.
READ_OUT = np.ones(1, dtype=int)


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample is one image and one text."""
    words = np.asarray(lengths["text"])[:, None]
    return {
        "vision": (np.full_like(words, image_tokens(config.vision_config)), config.vision_config.num_hidden_layers),
        "text": (words, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: both towers, their projections, and the product of the embeddings."""
    samples = len(counts["vision"].entered[0])
    similarity = LayerCost("head", "similarity", np.full(samples, config.projection_dim))
    return [*vision(config, counts), *text(config, counts), similarity]


def vision(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the image tower; the final norm applies only to [CLS]."""
    tower, entered = config.vision_config, counts["vision"].entered[0]
    embedded = patches(entered, tower) + norm(entered, tower.hidden_size)
    return [LayerCost("vision", "patches", embedded.sum(-1)), *_blocks("vision", tower, config, counts)]


def text(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the text tower. fvcore counts causal attention in full. The final norm is of one token."""
    return _blocks("text", config.text_config, config, counts)


def _blocks(name: str, tower: Any, config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the pre-norm blocks, and of the final norm and the projection of the read-out token."""
    width, tokens = tower.hidden_size, counts[name]
    costs = pre_norm_blocks(name, tower, tokens, config.madtp, PROTECTED[name])
    projected = 0 if name == "vision" and not config.image_projection else width * config.projection_dim
    embedding = np.full(tokens.entered.shape[1], (norm(READ_OUT, width) + projected).item())
    return [*costs, LayerCost(name, "embedding", embedding)]
