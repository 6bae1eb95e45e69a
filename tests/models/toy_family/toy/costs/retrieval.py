"""FLOPs formula of the toy family: an image, a text, and their similarity."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import feed_forward, image_tokens, norm, patches, pruning, self_attention


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample is one image and one text."""
    words = np.asarray(lengths["text"])[:, None]
    images = np.full_like(words, image_tokens(config.vision_config))
    return {
        "vision": (images, config.vision_config.num_hidden_layers),
        "text": (words, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: patches, both towers with their projections, similarity."""
    embedded = patches(counts["vision"].entered[0], config.vision_config)
    similarity = LayerCost("head", "similarity", np.full(len(embedded), config.projection_dim))
    return [
        LayerCost("vision", "patches", embedded.sum(-1)),
        *_tower("vision", config.vision_config, config, counts),
        *_tower("text", config.text_config, config, counts),
        similarity,
    ]


def _tower(name: str, tower: Any, config: Any, counts: Counts) -> list[LayerCost]:
    width, inner, passed = tower.hidden_size, tower.intermediate_size, counts[name]
    costs = []
    for block, (n, m) in enumerate(zip(passed.entered, passed.left, strict=True)):
        cost = norm(n, width) + self_attention(n, width) + pruning(n, tower, config.madtp) * passed.scored[block]
        cost = cost + norm(m, width) + feed_forward(m, width, inner)
        costs.append(LayerCost(name, f"layer {block}", cost.sum(-1)))
    read_out = int(norm(np.ones(1, dtype=int), width)[0]) + width * config.projection_dim
    return [*costs, LayerCost(name, "embedding", np.full(passed.entered.shape[1], read_out))]
