"""Costs that the formulas are made of, in multiply-adds.

Token counts (`n`, `m`, ...) are arrays [samples, inputs] or of any other shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from madtp_cli import methods
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.flops.counts import LayerCost, TokenCounts

#: Multiply-adds of a layer norm per element, fvcore's convention.
NORM = 5


def patch_grid(vision: Any) -> tuple[int, int]:
    """Return the rows and columns of an image's patches."""
    return int(vision.image_size // vision.patch_size), int(vision.image_size // vision.patch_size)


def image_tokens(vision: Any) -> int:
    """Return the tokens of a dense image, [CLS] included."""
    rows, columns = patch_grid(vision)
    return rows * columns + 1


def patches(tokens: np.ndarray, vision: Any) -> np.ndarray:
    """Return the cost of the patch embedding of images with this many tokens, [CLS] included."""
    return (tokens - 1) * 3 * vision.patch_size**2 * vision.hidden_size


def self_attention(n: np.ndarray, width: int, before: int = 0) -> np.ndarray:
    """Return the cost of the four projections and the two products.

    Args:
        n: Tokens.
        width: Numbers of a token.
        before: Tokens in the cache, whose keys and values exist.
    """
    return 4 * n * width**2 + 2 * n * (n + before) * width


def cross_attention(m: np.ndarray, memory: np.ndarray, width: int, memory_width: int) -> np.ndarray:
    """Return the cost of cross-attention from `m` tokens to `memory` tokens: all projections and products."""
    return cross_attention_queries(m, memory, width) + keys_and_values(memory, width, memory_width)


def cross_attention_queries(m: np.ndarray, memory: np.ndarray, width: int) -> np.ndarray:
    """Return the cost of cross-attention where the memory's keys and values exist."""
    return 2 * m * width**2 + 2 * m * memory * width


def keys_and_values(memory: np.ndarray, width: int, memory_width: int) -> np.ndarray:
    """Return the cost of projecting `memory` tokens to keys and values."""
    return 2 * memory * memory_width * width


def feed_forward(m: np.ndarray, width: int, inner: int) -> np.ndarray:
    """Return the cost of both layers."""
    return 2 * m * width * inner


def norm(m: np.ndarray, width: int) -> np.ndarray:
    """Return the cost of one layer norm."""
    return NORM * m * width


def pruning(
    n: np.ndarray, tower: Any, settings: Mapping[str, Any] | None, protected: int = 1, *, pooled: bool = False
) -> np.ndarray:
    """Return the cost of choosing the tokens that one block keeps.

    It consists of what the method needs (see `methods.Method.NEEDS`) and of the method's own products.

    Args:
        n: Tokens that enter the block.
        tower: Configuration of the tower.
        settings: `PruningSettings` as saved in the config; None for a dense model.
        protected: Protected tokens among `n`.
        pooled: Whether the tower is read by attention pooling. Class attention is then the attention of its probe to
            the normalised tokens.
    """
    if not settings:
        return np.zeros_like(n)
    pruned, width, prunable = PruningSettings(**settings), tower.hidden_size, np.maximum(n - protected, 0)
    cost = attention_statistics(n, prunable, width, pruned, pooled=pooled)
    if pooled and pruned.needs & methods.READ_OUT_SCORES:
        cost = cost + norm(n, width) + n * width * tower.num_attention_heads
    return cost + own_pruning(n, tower, pruned, protected)


def embedding_pruning(n: np.ndarray, tower: Any, settings: Mapping[str, Any] | None, protected: int = 1) -> np.ndarray:
    """Return the cost of choosing the tokens that go on to the first block, before which there is no attention.

    Args:
        n: Embedded tokens.
        tower, settings, protected: See `pruning`.
    """
    if not settings:
        return np.zeros_like(n)
    pruned, width = PruningSettings(**settings), tower.hidden_size
    return norm(n, width) + own_pruning(n, tower, pruned, protected)


def own_pruning(n: np.ndarray, tower: Any, pruned: PruningSettings, protected: int) -> np.ndarray:
    """Return the cost of the dictionary and of the method's own products; arguments as for `pruning`."""
    width = tower.hidden_size
    cost = n * width * pruned.dictionary_size * (methods.DICTIONARY in pruned.needs)
    sizes = methods.TokenSizes(width, width // tower.num_attention_heads, pruned.dictionary_size)
    return cost + methods.get(pruned.method).cost(np.maximum(n - protected, 0), sizes, pruned.parameters)


def pre_norm_blocks(
    name: str,
    tower: Any,
    tokens: TokenCounts,
    settings: Mapping[str, Any] | None,
    protected: int = 1,
    *,
    pooled: bool = False,
) -> list[LayerCost]:
    """Return the cost of the blocks of a pre-norm tower.

    Args:
        name: Name of the tower in reports.
        tower: Configuration of the tower.
        tokens: Tokens that enter each block, [blocks, samples, inputs], and those that its attention leaves.
        settings, protected, pooled: See `pruning`.
    """
    width, costs = tower.hidden_size, []
    for block, (n, m) in enumerate(zip(tokens.attended, tokens.left, strict=True)):
        cost = norm(n, width) + self_attention(n, width)
        cost = cost + pruning(n, tower, settings, protected, pooled=pooled) * tokens.scored[block]
        cost = cost + norm(m, width) + feed_forward(m, width, tower.intermediate_size)
        if block == 0 and tokens.embedded is not None:
            cost = cost + embedding_pruning(tokens.entered[0], tower, settings, protected)
        costs.append(LayerCost(name, f"layer {block}", cost.sum(-1)))
    return costs


def attention_statistics(
    n: np.ndarray, prunable: np.ndarray, width: int, settings: PruningSettings, *, pooled: bool = False
) -> np.ndarray:
    """Return the cost of computing the attention of the read-out query and of sampled queries once more.

    Statistics of all queries cost nothing: attention has already formed every probability. A tower with attention
    pooling (`pooled`) has no read-out query.
    """
    received, queries = methods.RECEIVED_ATTENTION in settings.needs, settings.parameters.queries
    if received and not queries:
        return np.zeros_like(n)
    read_outs = int(bool(settings.needs & methods.READ_OUT_SCORES) and not pooled)
    return (read_outs + (np.minimum(queries, prunable) if received else 0)) * n * width
