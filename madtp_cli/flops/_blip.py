"""Towers that the formulas of all BLIP models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from madtp_cli.flops import Counts, LayerCost
from madtp_cli.flops._parts import feed_forward, norm, patches, pruning, self_attention

#: What a text layer adds between self-attention and feed-forward, given the tokens [samples, inputs] and its number.
Look = Callable[[np.ndarray, int], np.ndarray]


def vision(config: Any, counts: Counts) -> list[LayerCost]:
    """The image tower, pre-norm; `counts["vision"]` has one or more images per sample."""
    tower, images = config.vision_config, counts["vision"]
    width = tower.hidden_size
    costs = [LayerCost("vision", "patches", patches(images.entered[0], tower).sum(-1))]
    for block, (n, m) in enumerate(zip(images.entered, images.left, strict=True)):
        cost = self_attention(n, width) + norm(n, width) + pruning(n, width, config.madtp) * images.scored[block]
        cost = cost + norm(m, width) + feed_forward(m, width, tower.intermediate_size)
        costs.append(LayerCost("vision", f"layer {block}", cost.sum(-1)))
    return [*costs, LayerCost("vision", "final norm", norm(images.left[-1], width).sum(-1))]


def text(config: Any, counts: Counts, tower: str = "text", look: Look | None = None) -> list[LayerCost]:
    """A text tower, post-norm, encoder or decoder (fvcore counts a causal product whole)."""
    sizes, words = config.text_config, counts[tower]
    width = sizes.hidden_size
    costs = [LayerCost(tower, "embeddings", norm(words.entered[0], width).sum(-1))]
    for block, (n, m) in enumerate(zip(words.entered, words.left, strict=True)):
        cost = self_attention(n, width) + norm(n, width) + pruning(n, width, config.madtp) * words.scored[block]
        cost = cost + feed_forward(m, width, sizes.intermediate_size) + norm(m, width)
        if look:
            cost = cost + look(m, block)
        costs.append(LayerCost(tower, f"layer {block}", cost.sum(-1)))
    return costs


def vocabulary(config: Any, counts: Counts) -> LayerCost:
    """The head of a decoder, for all of its tokens: a linear layer, its norm, and a logit for each word."""
    words, width = counts["decoder"].left[-1], config.text_config.hidden_size
    flops = words * width**2 + norm(words, width) + words * width * config.text_config.vocab_size
    return LayerCost("decoder", "vocabulary", flops.sum(-1))
