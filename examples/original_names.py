"""Convert weights back to the names of the original checkpoints, so that the examples look like published files."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from madtp_cli.checkpoint.formats import _original_clip, salesforce_blip


def blip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a BLIP under the names that Salesforce's code reads."""
    return {_blip_key(key): value for key, value in weights.items()}


def _blip_key(key: str) -> str:
    if not key.startswith("vision_model."):
        return key
    for original, ours in reversed(salesforce_blip.RENAMED):
        key = re.sub(re.escape(ours), original, key)
    return key


def clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a CLIP under the names that OpenAI's code reads.

    The three attention matrices of a block become one, and projections are transposed.
    """
    query, *others = _original_clip.PROJECTIONS
    original: dict[str, Tensor] = {}
    for key, value in weights.items():
        if any(f".{name}." in key for name in others):
            continue
        if key in _original_clip.TRANSPOSED.values():
            value = value.t().contiguous()
        elif f".{query}." in key:
            value = torch.cat([weights[key.replace(query, name)] for name in _original_clip.PROJECTIONS])
        original[_clip_key(key)] = value
    return original


def _clip_key(key: str) -> str:
    for original, ours in _original_clip.TRANSPOSED.items():
        if key == ours:
            return original
    key = key.replace(".self_attn.q_proj.", ".attn.in_proj_")
    for original, ours in (*_original_clip.TOWERS, *_original_clip.BLOCKS):
        key = key.replace(ours, original)
    return key
