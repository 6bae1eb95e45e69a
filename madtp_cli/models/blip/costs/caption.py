"""FLOPs formula of BLIP for captions: an image and one teacher-forced caption."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, image_tokens, norm
from madtp_cli.models.blip.costs import towers

#: The tower whose last tokens a caption attends to.
MEMORY = "vision"


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample is one image and one caption ("decoder")."""
    captions = np.asarray(lengths["decoder"])[:, None]
    images = np.full(captions.shape, image_tokens(config.vision_config))
    return {
        "vision": (images, config.vision_config.num_hidden_layers),
        "decoder": (captions, config.text_config.num_hidden_layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: image tower, decoder with cross-attention to the image, vocabulary head."""
    image = counts["vision"].left[-1]
    width, image_width = config.text_config.hidden_size, config.vision_config.hidden_size

    def at_image(m: np.ndarray, block: int) -> np.ndarray:
        return cross_attention(m, image, width, image_width) + norm(m, width)

    return [
        *towers.vision(config, counts),
        *towers.text(config, counts, "decoder", at_image),
        towers.vocabulary(config, counts),
    ]


def text_run(config: Any, run: TextRun, memory: np.ndarray) -> int:
    """Return the multiply-adds of one step of the decoder; `memory` [samples] are the tokens of each image."""
    cost = towers.text_run(config, run, memory, config.vision_config.hidden_size)
    return cost + int(towers.logits(config, np.array(run.read_out)))
