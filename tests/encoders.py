"""Small CLIP and SigLIP models for tasks that share the tensors of the models for retrieval."""

from __future__ import annotations

from typing import Any

from madtp_cli import models
from madtp_cli.models.prunable import Prunable


def for_task(retrieval: Any, task: str) -> Prunable:
    """Return a dense model for another task, with the tensors of a model for retrieval."""
    config = type(retrieval.config)(**{**retrieval.config.to_dict(), "task": task})
    model: Any = models.get(models.kind_of(config))(config).eval()
    own = model.state_dict()
    model.load_state_dict({key: value for key, value in retrieval.state_dict().items() if key in own})
    prunable: Prunable = model
    return prunable
