"""The folders that madtp writes: config.json, model.safetensors, processor and tokenizer."""

from __future__ import annotations

from madtp_cli import models
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.tower_shapes import resized, tied
from madtp_cli.errors import CheckpointError

NAME = "madtp folder"


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """A folder whose config.json names one of our model types, such as `madtp_blip`."""
    model_types = [family.model_type for family in models.families().values()]
    if source.config is None or source.config.get("model_type") not in model_types:
        return None
    if not source.weights:
        raise CheckpointError(f"{source.path} has no model.safetensors.\nThe folder is incomplete; make it again.")
    found = Recognised(NAME, str(source.config.get("task")), dict(source.config), tied(source.weights))
    return resized(found, overrides.image_size)
