"""Costs of the towers, which the formulas of all BLIP models share."""

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
    pre_norm_blocks,
    pruning,
    self_attention,
)

#: Cost of a text layer's cross-attention, given the layer's tokens, [samples, inputs], and its number.
CrossCost = Callable[[np.ndarray, int], np.ndarray]


def vision(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the image tower (pre-norm). `counts["vision"]` has one or more images per sample."""
    tower, images = config.vision_config, counts["vision"]
    return [
        LayerCost("vision", "patches", patches(images.entered[0], tower).sum(-1)),
        *pre_norm_blocks("vision", tower, images, config.madtp),
        LayerCost("vision", "final norm", norm(images.left[-1], tower.hidden_size).sum(-1)),
    ]


def text(config: Any, counts: Counts, tower: str = "text", cross: CrossCost | None = None) -> list[LayerCost]:
    """Return the cost of a text encoder or decoder (post-norm). fvcore counts causal attention in full.

    Args:
        config: The model's configuration.
        counts: Token counts by tower.
        tower: Name of the tower in `counts`.
        cross: Cost of cross-attention; None for a text that attends only to itself.
    """
    sizes, words = config.text_config, counts[tower]
    width = sizes.hidden_size
    costs = [LayerCost(tower, "embeddings", norm(words.entered[0], width).sum(-1))]
    for block, (n, m) in enumerate(zip(words.entered, words.left, strict=True)):
        cost = self_attention(n, width) + norm(n, width) + pruning(n, sizes, config.madtp) * words.scored[block]
        cost = cost + feed_forward(m, width, sizes.intermediate_size) + norm(m, width)
        if cross:
            cost = cost + cross(m, block)
        costs.append(LayerCost(tower, f"layer {block}", cost.sum(-1)))
    return costs


def vocabulary(config: Any, counts: Counts) -> LayerCost:
    """Return the cost of a decoder's head for all its tokens."""
    return LayerCost("decoder", "vocabulary", logits(config, counts["decoder"].left[-1]).sum(-1))


def logits(config: Any, tokens: np.ndarray) -> np.ndarray:
    """Return the cost of a decoder's head: a linear layer, its norm, and one logit per word piece."""
    width = config.text_config.hidden_size
    return tokens * width**2 + norm(tokens, width) + tokens * width * config.text_config.vocab_size


def text_run(config: Any, run: TextRun, memory: np.ndarray, memory_width: int) -> int:
    """Return the multiply-adds of one text run, without the head.

    Args:
        config: The model's configuration.
        run: The run.
        memory: Tokens that the texts attend to, [samples].
        memory_width: Width of these tokens.
    """
    sizes, memory_of_texts = config.text_config, np.repeat(memory, run.texts)
    width = sizes.hidden_size
    cost = norm(np.array(run.blocks[0].entered), width)
    for block in run.blocks:
        n, m = np.array(block.entered), np.array(block.left)
        cost = cost + self_attention(n, width, run.cached) + norm(n, width)
        cost = cost + pruning(n, sizes, config.madtp) * block.scored
        cost = cost + cross_attention_queries(m, memory_of_texts, width) + norm(m, width)
        cost = cost + feed_forward(m, width, sizes.intermediate_size) + norm(m, width)
    keys = keys_and_values(memory, width, memory_width).sum() * len(run.blocks) * run.new_keys
    return int(cost.sum() + keys)
