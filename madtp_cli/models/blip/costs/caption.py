"""An image and one teacher-forced caption."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, image_tokens, norm
from madtp_cli.models.blip.costs import towers

#: What a caption looks at.
MEMORY = "vision"


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """One image and one caption ("decoder") per sample."""
    captions = np.asarray(lengths["decoder"])[:, None]
    images = np.full(captions.shape, image_tokens(config.vision_config))
    return {
        "vision": (images, config.vision_config.num_hidden_layers),
        "decoder": (captions, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """The image tower, the caption looking at the image in every layer, and the words' head."""
    image = counts["vision"].left[-1]
    width, image_width = config.text_config.hidden_size, config.vision_config.hidden_size

    def look(m: np.ndarray, block: int) -> np.ndarray:
        return cross_attention(m, image, width, image_width) + norm(m, width)

    return [
        *towers.vision(config, counts),
        *towers.text(config, counts, "decoder", look),
        towers.vocabulary(config, counts),
    ]


def reading(config: Any, read: TextRun, seen: np.ndarray) -> int:
    """The next words of captions that look at images of `seen` tokens."""
    looked = towers.reading(config, read, seen, config.vision_config.hidden_size)
    return looked + int(towers.logits(config, np.array(read.read_out)))
