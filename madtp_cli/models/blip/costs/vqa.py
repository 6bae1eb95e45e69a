"""FLOPs formula of BLIP for VQA: an image, a question, and one teacher-forced answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths
from madtp_cli.flops.parts import cross_attention, image_tokens, norm
from madtp_cli.models.blip.costs import towers

#: The tower whose last tokens an answer attends to.
MEMORY = "text"


def tokens(config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
    """Return the tokens of each tower and its number of blocks; a sample has three inputs.

    These are one image, one question ("text") and one answer ("decoder").
    """
    questions, answers = (np.asarray(lengths[tower])[:, None] for tower in ("text", "decoder"))
    layers = config.text_config.num_hidden_layers
    images = np.full(questions.shape, image_tokens(config.vision_config))
    return {
        "vision": (images, config.vision_config.num_hidden_layers),
        "text": (questions, layers),
        "decoder": (answers, layers),
    }


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer: image tower, question with cross-attention to the image, answer with
    cross-attention to the question, vocabulary head.
    """
    image, question = counts["vision"].left[-1], counts["text"].left[-1]
    width, image_width = config.text_config.hidden_size, config.vision_config.hidden_size

    def at_image(m: np.ndarray, block: int) -> np.ndarray:
        return cross_attention(m, image, width, image_width) + norm(m, width)

    def at_question(m: np.ndarray, block: int) -> np.ndarray:
        return cross_attention(m, question, width, width) + norm(m, width)

    return [
        *towers.vision(config, counts),
        *towers.text(config, counts, cross=at_image),
        *towers.text(config, counts, "decoder", at_question),
        towers.vocabulary(config, counts),
    ]


def text_run(config: Any, run: TextRun, memory: np.ndarray) -> int:
    """Return the multiply-adds of a run of the decoder; `memory` [samples] are the tokens of each question."""
    cost = towers.text_run(config, run, memory, config.text_config.hidden_size)
    return cost + int(towers.logits(config, np.array(run.read_out)))
