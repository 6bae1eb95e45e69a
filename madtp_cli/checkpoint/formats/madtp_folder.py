"""The folders that madtp writes: config.json, model.safetensors, processor and tokenizer."""

from __future__ import annotations

from madtp_cli import models
from madtp_cli.checkpoint.blip_parts import with_tied_weights
from madtp_cli.checkpoint.config_schema import require_valid
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.position_embeddings import with_image_size
from madtp_cli.errors import CheckpointError

NAME = "madtp folder"


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder whose config.json has the model type of one of our families, such as `madtp_blip`."""
    known = [family.model_type for family in models.families().values()]
    if source.config is None or source.config.get("model_type") not in known:
        return None
    if not source.weights:
        raise CheckpointError(
            f"{source.path} has no model.safetensors, so the folder is incomplete.\nCopy it again, or write it again."
        )
    require_valid(source.config, source.path / "config.json")
    recognised = Recognised(
        NAME, str(source.config.get("task")), dict(source.config), with_tied_weights(source.weights)
    )
    return with_image_size(recognised, overrides.image_size)
