"""FLOPs formula of BLIP for retrieval: an image, a text, and their matching score."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, image_tokens, norm
from madtp_cli.models.blip.costs import towers

#: The tower whose last tokens a text attends to when it is matched.
MEMORY = "vision"


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample is one image and one text.

    The text encoder runs twice: without the image ("text") and with cross-attention to it ("pair").
    """
    words = np.asarray(lengths["text"])[:, None]
    text = (words, config.text_config.num_hidden_layers)
    images = np.full(words.shape, image_tokens(config.vision_config))
    return {"vision": (images, config.vision_config.num_hidden_layers), "text": text, "pair": text}


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: image tower, text encoder without and with cross-attention, heads."""
    image = counts["vision"].left[-1]
    width, image_width = config.text_config.hidden_size, config.vision_config.hidden_size

    def at_image(m: np.ndarray, block: int) -> np.ndarray:
        return cross_attention(m, image, width, image_width) + norm(m, width)

    return [
        *towers.vision(config, counts),
        *towers.text(config, counts),
        *towers.text(config, counts, "pair", at_image),
        LayerCost("head", "embeddings", np.full(len(image), (width + image_width) * config.image_text_hidden_size)),
        LayerCost("head", "matching", np.full(len(image), 2 * width)),
    ]


def text_run(config: Any, run: TextRun, memory: np.ndarray) -> int:
    """Return the multiply-adds of matching texts with images; `memory` [samples] are the tokens of each image."""
    cost = towers.text_run(config, run, memory, config.vision_config.hidden_size)
    return cost + 2 * config.text_config.hidden_size * run.read_out
