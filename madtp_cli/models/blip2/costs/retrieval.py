"""FLOPs formula of BLIP-2 for retrieval: an image, a text, their similarity and their matching score."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import (
    cross_attention_queries,
    feed_forward,
    image_tokens,
    keys_and_values,
    norm,
    patches,
    pre_norm_blocks,
    pruning,
    self_attention,
)

#: The tower whose last tokens the queries attend to.
MEMORY = "vision"


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample is one image and one text.

    The Q-Former runs on the text, on the queries, and on both together ("pair").
    """
    words, layers = np.asarray(lengths["text"])[:, None], config.text_config.num_hidden_layers
    images = np.full(words.shape, image_tokens(config.vision_config))
    queries = np.full(words.shape, config.num_query_tokens)
    return {
        "vision": (images, config.vision_config.num_hidden_layers),
        "text": (words, layers),
        "queries": (queries, layers),
        "pair": (queries + words, layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: image tower, the three runs of the Q-Former, and the heads."""
    image, width, joint = counts["vision"].left[-1], config.text_config.hidden_size, config.image_text_hidden_size
    queries, samples = config.num_query_tokens, len(counts["vision"].left[-1])
    heads = {
        "embeddings": (queries + 1) * width * joint,
        "similarity": queries * joint,
        "matching": 2 * queries * width * ("pair" in counts),
    }
    runs = [run for run in ("queries", "pair") if run in counts]  # without a text for each image nothing is matched
    return [
        *_vision(config, counts),
        *_qformer(config, counts, "text"),
        *[cost for run in runs for cost in _qformer(config, counts, run, image)],
        *[LayerCost("head", name, np.full(samples, cost)) for name, cost in heads.items()],
    ]


def _vision(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of the image tower (pre-norm)."""
    tower, images = config.vision_config, counts["vision"]
    return [
        LayerCost("vision", "patches", patches(images.entered[0], tower).sum(-1)),
        *pre_norm_blocks("vision", tower, images, config.madtp),
        LayerCost("vision", "final norm", norm(images.left[-1], tower.hidden_size).sum(-1)),
    ]


def _qformer(config: Any, counts: Counts, run: str, memory: np.ndarray | None = None) -> list[LayerCost]:
    """Return the cost of a run of the Q-Former (post-norm); the queries attend to `memory` image tokens."""
    sizes, words = config.text_config, counts[run]
    width = sizes.hidden_size
    costs = [LayerCost(run, "embeddings", norm(words.entered[0], width).sum(-1))]
    for block, (n, m) in enumerate(zip(words.entered, words.left, strict=True)):
        cost = _layer(config, n, m) + pruning(n, sizes, config.madtp) * words.scored[block]
        if memory is not None and looks(config, block):
            cost = cost + _look(config, memory) + keys_and_values(memory, width, config.vision_config.hidden_size)
        costs.append(LayerCost(run, f"layer {block}", cost.sum(-1)))
    return costs


def _layer(config: Any, n: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Return the cost of a layer without cross-attention: `n` tokens enter and `m` go through the feed-forward."""
    sizes = config.text_config
    width = sizes.hidden_size
    cost = self_attention(n, width) + norm(n, width)
    return cost + feed_forward(m, width, sizes.intermediate_size) + norm(m, width)


def _look(config: Any, memory: np.ndarray) -> np.ndarray:
    """Return the cost of the queries' cross-attention, whose keys and values exist."""
    width, queries = config.text_config.hidden_size, np.full(memory.shape, config.num_query_tokens)
    return cross_attention_queries(queries, memory, width) + norm(queries, width)


def looks(config: Any, block: int) -> bool:
    """Return whether the queries attend to the image in a layer of the Q-Former."""
    return bool(block % config.text_config.cross_attention_frequency == 0)


def text_run(config: Any, run: TextRun, memory: np.ndarray) -> int:
    """Return the multiply-adds of matching texts with images; `memory` [samples] are the tokens of each image."""
    width, of_texts = config.text_config.hidden_size, np.repeat(memory, run.texts)
    cost = norm(np.array(run.blocks[0].entered), width)
    for number, block in enumerate(run.blocks):
        cost = cost + _layer(config, np.array(block.entered), np.array(block.left))
        if looks(config, number):
            cost = cost + _look(config, of_texts)
    layers = sum(looks(config, number) for number in range(len(run.blocks)))
    keys = keys_and_values(memory, width, config.vision_config.hidden_size).sum() * layers * run.new_keys
    return int(cost.sum() + keys) + 2 * width * run.read_out
