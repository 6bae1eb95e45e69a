"""An image, a text, and their match."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, image_tokens, norm
from madtp_cli.models.blip.costs import towers

#: What a text is matched with.
MEMORY = "vision"


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """One image and one text per sample; the text is read alone, and again looking at the image ("pair")."""
    words = np.asarray(lengths["text"])[:, None]
    text = (words, config.text_config.num_hidden_layers)
    images = np.full(words.shape, image_tokens(config.vision_config))
    return {"vision": (images, config.vision_config.num_hidden_layers), "text": text, "pair": text}


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """The image tower, the text encoder alone and looking at the image in every layer, and the heads."""
    seen = counts["vision"].left[-1]
    width, image_width = config.text_config.hidden_size, config.vision_config.hidden_size

    def look(m: np.ndarray, block: int) -> np.ndarray:
        return cross_attention(m, seen, width, image_width) + norm(m, width)

    return [
        *towers.vision(config, counts),
        *towers.text(config, counts),
        *towers.text(config, counts, "pair", look),
        LayerCost("head", "embeddings", np.full(len(seen), (width + image_width) * config.image_text_hidden_size)),
        LayerCost("head", "matching", np.full(len(seen), 2 * width)),
    ]


def reading(config: Any, read: TextRun, seen: np.ndarray) -> int:
    """Texts that are matched with images of `seen` tokens."""
    looked = towers.reading(config, read, seen, config.vision_config.hidden_size)
    return looked + 2 * config.text_config.hidden_size * read.read_out
