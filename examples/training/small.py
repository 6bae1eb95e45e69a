"""A small checkpoint with random weights, for tests of whole commands."""

from __future__ import annotations

from pathlib import Path

import torch

from examples import pretrain
from examples.training.checkpoints import draw_weights
from examples.training.vocabularies import bert_tokenizer
from madtp_cli.models.blip.nlvr2 import MadtpBlipForNLVR2
from madtp_cli.models.blip.towers import MadtpBlipConfig


def small_checkpoint(folder: Path) -> Path:
    """Write a small BLIP for NLVR2, marked as trained on the scenes: blip.pt and tokenizer/. Return blip.pt."""
    tokenizer = bert_tokenizer()
    tower = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=1)
    vision = tower | dict(image_size=96, patch_size=12, layer_norm_eps=1e-6, initializer_range=0.02)
    text = tower | dict(max_position_embeddings=48, vocab_size=len(tokenizer), bos_token_id=len(tokenizer) - 2)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = MadtpBlipForNLVR2(MadtpBlipConfig(vision_config=vision, text_config=text, merge_from=1))
        draw_weights(model)
    pretrain.save(model, tokenizer, folder)
    return folder / "blip.pt"
