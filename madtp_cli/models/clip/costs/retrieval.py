"""An image and a text, cropped at its end, and their similarity."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import feed_forward, image_tokens, norm, patches, pruning, self_attention

#: Pinned tokens of each tower: [CLS]; a text's start and end.
PINNED = {"vision": 1, "text": 2}
#: What is read from each image or text.
READ = np.ones(1, dtype=int)


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """One image and one text per sample."""
    words = np.asarray(lengths["text"])[:, None]
    return {
        "vision": (np.full_like(words, image_tokens(config.vision_config)), config.vision_config.num_hidden_layers),
        "text": (words, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Both towers, the projection of what is read from each, and one product of both."""
    samples = len(counts["vision"].entered[0])
    similarity = LayerCost("head", "similarity", np.full(samples, config.projection_dim))
    return [*vision(config, counts), *text(config, counts), similarity]


def vision(config: Any, counts: Counts) -> list[LayerCost]:
    """The image tower; only [CLS] goes through the final norm."""
    tower, entered = config.vision_config, counts["vision"].entered[0]
    embedded = patches(entered, tower) + norm(entered, tower.hidden_size)
    return [LayerCost("vision", "patches", embedded.sum(-1)), *_blocks("vision", tower, config, counts)]


def text(config: Any, counts: Counts) -> list[LayerCost]:
    """The text tower (fvcore counts a causal product whole); only the text's end goes through the final norm."""
    return _blocks("text", config.text_config, config, counts)


def _blocks(name: str, tower: Any, config: Any, counts: Counts) -> list[LayerCost]:
    """Pre-norm blocks, the final norm of what is read, and its projection."""
    width, inner, own = tower.hidden_size, tower.intermediate_size, counts[name]
    costs = []
    for block, (n, m) in enumerate(zip(own.entered, own.left, strict=True)):
        scoring = pruning(n, tower, config.madtp, PINNED[name]) * own.scored[block]
        cost = norm(n, width) + self_attention(n, width) + scoring + norm(m, width) + feed_forward(m, width, inner)
        costs.append(LayerCost(name, f"layer {block}", cost.sum(-1)))
    read = np.full(own.entered.shape[1], (norm(READ, width) + width * config.projection_dim).item())
    return [*costs, LayerCost(name, "embedding", read)]
