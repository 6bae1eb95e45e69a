"""Reading and writing of checkpoints. Nothing here runs code from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madtp_cli.checkpoint.processors import Processor
    from madtp_cli.models.prunable import Prunable


def load(source: str | Path, **overrides: Any) -> tuple[Prunable, Processor]:
    """Return the model of a checkpoint and its processor; `loading.load` describes the arguments."""
    from madtp_cli.checkpoint import loading

    loaded = loading.load(Path(source), **overrides)
    return loaded.model, loaded.processor
