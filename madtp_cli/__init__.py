"""Compress vision-language models by dropping the tokens they can do without (MADTP, arXiv:2403.02991)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from madtp_cli.checkpoint.processors import Processor
    from madtp_cli.models.prunable import Prunable

__version__ = "0.1.0"

logger = logging.getLogger(__name__)


def load(path: str | Path) -> tuple[Prunable, Processor]:
    """Load a checkpoint, dense or pruned, file or folder, in evaluation mode.

    Returns:
        The model and its processor.

    Raises:
        CheckpointError: It cannot be read or used; the message says what to do.
    """
    from madtp_cli.checkpoint import load

    loaded = load.load(Path(path))
    for note in loaded.notes:
        # The notes of the inspection state assumptions; a note that only loading adds is about tensors left out.
        logger.log(logging.INFO if note in loaded.inspection.notes else logging.WARNING, "%s: %s", path, note)
    return loaded.model, loaded.processor
