"""FLOPs formula of CLIP for zero-shot classification: an image; the texts of the classes are counted separately."""

from __future__ import annotations

from typing import Any

import numpy as np

from madtp_cli.execution.text_runs import TextRun
from madtp_cli.flops.counts import TokenCounts
from madtp_cli.models.clip.costs import retrieval
from madtp_cli.models.clip.costs.embedding import costs as costs
from madtp_cli.models.clip.costs.embedding import tokens as tokens

#: The texts of classes attend to no image; a text run states its samples by the tokens of this tower.
MEMORY = "vision"


def text_run(config: Any, run: TextRun, memory: np.ndarray) -> int:
    """Return the multiply-adds of encoding the texts of classes, all texts together."""
    counts = {"text": TokenCounts.of(list(run.blocks), 1)}
    return int(sum(layer.flops.sum() for layer in retrieval.text(config, counts)))
