"""Costs that the formulas are made of; `n` and the like are tokens, [samples, inputs] or any shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from madtp_cli import methods

#: Multiply-adds of a layer norm per element, fvcore's convention.
NORM = 5


def image_tokens(vision: Any) -> int:
    """Tokens of a dense image, [CLS] included."""
    return int((vision.image_size // vision.patch_size) ** 2 + 1)


def patches(tokens: np.ndarray, vision: Any) -> np.ndarray:
    """The patch embedding of images of so many tokens, [CLS] included."""
    return (tokens - 1) * 3 * vision.patch_size**2 * vision.hidden_size


def self_attention(n: np.ndarray, width: int, before: int = 0) -> np.ndarray:
    """Query, key, value, output projections and the two products; `before` more tokens are seen from a cache."""
    return 4 * n * width**2 + 2 * n * (n + before) * width


def cross_attention(m: np.ndarray, seen: np.ndarray, width: int, seen_width: int) -> np.ndarray:
    """Tokens `m` look at tokens `seen`: queries and output, keys and values, the two products."""
    return looks(m, seen, width) + keys_and_values(seen, width, seen_width)


def looks(m: np.ndarray, seen: np.ndarray, width: int) -> np.ndarray:
    """Tokens `m` look at tokens `seen` whose keys and values are there: queries and output, the two products."""
    return 2 * m * width**2 + 2 * m * seen * width


def keys_and_values(seen: np.ndarray, width: int, seen_width: int) -> np.ndarray:
    """Of tokens `seen`, for those that look at them."""
    return 2 * seen * seen_width * width


def feed_forward(m: np.ndarray, width: int, inner: int) -> np.ndarray:
    """Both layers."""
    return 2 * m * width * inner


def norm(m: np.ndarray, width: int) -> np.ndarray:
    """One layer norm."""
    return NORM * m * width


def pruning(n: np.ndarray, width: int, settings: Mapping[str, Any] | None, pinned: int = 1) -> np.ndarray:
    """The second look at the attention, dictionary logits of all tokens, and the method's own for the prunable."""
    if not settings:
        return np.zeros_like(n)
    atoms, prunable = settings["dictionary_size"], np.maximum(n - pinned, 0)
    looked = np.minimum(settings["queries"], prunable) + 1 if settings.get("queries") else np.zeros_like(n)
    return looked * n * width + n * width * atoms + methods.get(settings["method"]).cost(prunable, width, atoms)
