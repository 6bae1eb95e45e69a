"""Salesforce BLIP checkpoints: `{"model": ...}` with the original key names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

#: CLIP's normalisation, used by every BLIP (data/*.py of the original).
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

#: Original name of each vision module and transformers' name; text and heads have one name.
RENAMED = (
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.norm.", "vision_model.post_layernorm."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
)


def to_transformers(key: str) -> str:
    """Our name of an original key.

    >>> to_transformers("visual_encoder.blocks.0.norm1.bias")
    'vision_model.encoder.layers.0.layer_norm1.bias'
    """
    if not key.startswith("visual_encoder."):
        return key
    for original, ours in RENAMED:
        key = key.replace(original, ours)
    return key


def to_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their original names, as Salesforce's own loader reads them."""
    return {_original_key(key): value for key, value in weights.items()}


def _original_key(key: str) -> str:
    if not key.startswith("vision_model."):
        return key
    for original, ours in reversed(RENAMED):
        key = re.sub(re.escape(ours), original, key)
    return key
