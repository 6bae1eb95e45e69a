"""A small BLIP for retrieval whose sizes all differ, and images with captions of different lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.models.blip.retrieval import MadtpBlipForImageTextRetrieval
from madtp_cli.models.blip.towers import MadtpBlipConfig
from tests.drawing import attached as attached
from tests.drawing import draw

Batch = dict[str, Tensor]
#: Number of tokens of each caption, [CLS] included.
TEXT_LENGTHS = (9, 4, 12, 3, 7)
#: Token numbers of [CLS] and [ENC]; there are 70 word pieces.
CLS, ENC = 4, 69


def dense() -> MadtpBlipForImageTextRetrieval:
    """Return the model: vision 3 x 48 with 37 tokens, text 2 x 32, embeddings of width 20."""
    vision = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=3,
                  image_size=48, patch_size=8)  # fmt: skip
    text = dict(hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=2, vocab_size=70,
                max_position_embeddings=16, bos_token_id=68, sep_token_id=2)  # fmt: skip
    config = MadtpBlipConfig(task="retrieval", vision_config=vision, text_config=text, image_text_hidden_size=20)
    model = MadtpBlipForImageTextRetrieval(config).eval()
    draw(model, seed=1)
    return model


def samples() -> list[Batch]:
    """Return five images, each with its caption, each in a batch of its own without padding."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for number, length in enumerate(TEXT_LENGTHS):
        coarse = torch.randn(1, 3, 6, 6, generator=generator) * (1 + number)
        pixels = functional.interpolate(coarse, size=(48, 48)) + torch.randn(1, 3, 48, 48, generator=generator)
        words = torch.randint(5, 68, (1, length), generator=generator)
        words[0, 0] = CLS
        made.append({"pixel_values": pixels, "input_ids": words, "attention_mask": torch.ones_like(words)})
    return made


def collate(samples: Sequence[Batch], longest: int = 0, padding: int = 67) -> Batch:
    """Return one batch, with captions padded to `longest` with a real word."""
    longest = max(longest, *[sample["input_ids"].shape[1] for sample in samples])

    def padded(name: str, fill: int) -> Tensor:
        return torch.cat([functional.pad(s[name], (0, longest - s[name].shape[1]), value=fill) for s in samples])

    pixels = torch.cat([sample["pixel_values"] for sample in samples])
    return {"pixel_values": pixels, "input_ids": padded("input_ids", padding),
            "attention_mask": padded("attention_mask", 0)}  # fmt: skip
