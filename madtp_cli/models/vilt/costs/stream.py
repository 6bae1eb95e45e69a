"""Costs of ViLT's blocks, which the formulas of all tasks share."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import image_tokens, norm, patches, pre_norm_blocks


def tokens(config: Any, lengths: Lengths, images: int) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of the stream, and the words, which have no blocks of their own.

    Args:
        config: The model's configuration.
        lengths: Words of each sample, "text", and tokens of its images, "image"; square images if it is not there.
        images: Images of each sample.
    """
    words = np.asarray(lengths["text"])[:, None]
    of_images = np.full((len(words), images), image_tokens(config.vision_config))
    if "image" in lengths:
        of_images = np.asarray(lengths["image"])
    return {"vision": (of_images + words, config.vision_config.num_hidden_layers), "text": (words, 1)}


def costs(config: Any, counts: Counts, width: int, inner: int, labels: int) -> list[LayerCost]:
    """Return the cost of each layer; the words run once with each image.

    Args:
        config: The model's configuration.
        counts: Token counts.
        width, inner, labels: Sizes of the classifier.
    """
    tower, stream, words = config.vision_config, counts["vision"], counts["text"].entered[0]
    size, inputs = tower.hidden_size, counts["vision"].entered.shape[2]
    layers = [
        LayerCost("text", "embeddings", inputs * norm(words, size).sum(-1)),
        LayerCost("vision", "patches", patches(stream.entered[0] - words, tower).sum(-1)),
    ]
    head = inputs * size**2 + width * inner + norm(np.array(1), inner) + inner * labels
    return [
        *layers,
        *pre_norm_blocks("vision", tower, stream, config.madtp, words + 1),
        LayerCost("vision", "final norm", norm(stream.left[-1], size).sum(-1)),
        LayerCost("head", "classifier", np.full(len(words), head)),
    ]
