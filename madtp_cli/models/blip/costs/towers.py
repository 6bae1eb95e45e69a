"""Towers that the formulas of all BLIP models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost
from madtp_cli.flops.parts import (
    cross_attention_queries,
    feed_forward,
    keys_and_values,
    norm,
    patches,
    pruning,
    self_attention,
)

#: What a text layer adds between self-attention and feed-forward, given the tokens [samples, inputs] and its number.
Look = Callable[[np.ndarray, int], np.ndarray]


def vision(config: Any, counts: Counts) -> list[LayerCost]:
    """The image tower, pre-norm; `counts["vision"]` has one or more images per sample."""
    tower, images = config.vision_config, counts["vision"]
    width = tower.hidden_size
    costs = [LayerCost("vision", "patches", patches(images.entered[0], tower).sum(-1))]
    for block, (n, m) in enumerate(zip(images.entered, images.left, strict=True)):
        cost = self_attention(n, width) + norm(n, width) + pruning(n, tower, config.madtp) * images.scored[block]
        cost = cost + norm(m, width) + feed_forward(m, width, tower.intermediate_size)
        costs.append(LayerCost("vision", f"layer {block}", cost.sum(-1)))
    return [*costs, LayerCost("vision", "final norm", norm(images.left[-1], width).sum(-1))]


def text(config: Any, counts: Counts, tower: str = "text", look: Look | None = None) -> list[LayerCost]:
    """A text tower, post-norm, encoder or decoder (fvcore counts a causal product whole)."""
    sizes, words = config.text_config, counts[tower]
    width = sizes.hidden_size
    costs = [LayerCost(tower, "embeddings", norm(words.entered[0], width).sum(-1))]
    for block, (n, m) in enumerate(zip(words.entered, words.left, strict=True)):
        cost = self_attention(n, width) + norm(n, width) + pruning(n, sizes, config.madtp) * words.scored[block]
        cost = cost + feed_forward(m, width, sizes.intermediate_size) + norm(m, width)
        if look:
            cost = cost + look(m, block)
        costs.append(LayerCost(tower, f"layer {block}", cost.sum(-1)))
    return costs


def vocabulary(config: Any, counts: Counts) -> LayerCost:
    """The head of a decoder, for all of its tokens."""
    return LayerCost("decoder", "vocabulary", logits(config, counts["decoder"].left[-1]).sum(-1))


def logits(config: Any, tokens: np.ndarray) -> np.ndarray:
    """A decoder's head for some tokens: a linear layer, its norm, and a logit for each word."""
    width = config.text_config.hidden_size
    return tokens * width**2 + norm(tokens, width) + tokens * width * config.text_config.vocab_size


def reading(config: Any, read: TextRun, seen: np.ndarray, seen_width: int) -> int:
    """Multiply-adds of a text tower, its head apart, for texts that look at tokens `seen` [samples]."""
    sizes, looked_at = config.text_config, np.repeat(seen, read.texts)
    width = sizes.hidden_size
    cost = norm(np.array(read.blocks[0].entered), width)
    for block in read.blocks:
        n, m = np.array(block.entered), np.array(block.left)
        cost = cost + self_attention(n, width, read.before) + norm(n, width)
        cost = cost + pruning(n, sizes, config.madtp) * block.scored
        cost = cost + cross_attention_queries(m, looked_at, width) + norm(m, width)
        cost = cost + feed_forward(m, width, sizes.intermediate_size) + norm(m, width)
    keys = keys_and_values(seen, width, seen_width).sum() * len(read.blocks) * read.keyed
    return int(cost.sum() + keys)
