"""A small SigLIP whose sizes all differ, and images with texts that are padded to all positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from madtp_cli.models.siglip.retrieval import MadtpSiglipForRetrieval
from madtp_cli.models.siglip.towers import MadtpSiglipConfig
from tests.drawing import draw

Batch = dict[str, Tensor]
VISION: dict[str, Any] = dict(
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=3,
    image_size=48,
    patch_size=8,
    hidden_act="gelu",
)
TEXT: dict[str, Any] = dict(
    hidden_size=32,
    intermediate_size=72,
    num_hidden_layers=4,
    num_attention_heads=2,
    vocab_size=70,
    max_position_embeddings=16,
    projection_size=48,
    bos_token_id=None,
    eos_token_id=1,
)


def dense() -> MadtpSiglipForRetrieval:
    """Return the model: vision 3 x 48 with 36 tokens, text 4 x 32 with 16 tokens."""
    model = MadtpSiglipForRetrieval(MadtpSiglipConfig(vision_config=dict(VISION), text_config=dict(TEXT))).eval()
    draw(model, seed=1)
    return model


def padded(sample: Batch) -> Batch:
    """Return a captioned image with its text padded by the end-of-text token to all positions."""
    words = sample["input_ids"]
    filling = torch.ones(len(words), 16 - words.shape[1], dtype=torch.long)
    ids = torch.cat([words, filling], 1)
    return {"pixel_values": sample["pixel_values"], "input_ids": ids, "attention_mask": torch.ones_like(ids)}


def collate(samples: list[Batch]) -> Batch:
    """Return one batch."""
    return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}
