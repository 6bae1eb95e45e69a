"""The folders that madtp writes: config.json, model.safetensors, processor and tokenizer."""

from __future__ import annotations

import dataclasses

from madtp_cli.errors import CheckpointError
from madtp_cli.formats import Recognised, Source, Told, resize_positions

NAME = "madtp folder"
MODEL_TYPE = "madtp_blip"
POSITIONS = "vision_model.embeddings.position_embedding"


def recognise(source: Source, told: Told) -> Recognised | None:
    """A folder whose config.json says `madtp_blip`."""
    if source.config is None or source.config.get("model_type") != MODEL_TYPE:
        return None
    if not source.weights:
        raise CheckpointError(f"{source.path} has no model.safetensors.\nThe folder is incomplete; make it again.")
    found = Recognised(NAME, str(source.config.get("task")), dict(source.config), dict(source.weights))
    return _resized(found, told.image_size) if told.image_size else found


def _resized(found: Recognised, image_size: int) -> Recognised:
    vision = dict(found.config["vision_config"])
    if vision["image_size"] == image_size:
        return found
    note = f"Position embeddings resized from {vision['image_size']} to {image_size} pixels."
    resized = resize_positions(found.weights[POSITIONS], image_size, vision["patch_size"])
    return dataclasses.replace(
        found,
        config={**found.config, "vision_config": {**vision, "image_size": image_size}},
        weights={**found.weights, POSITIONS: resized},
        notes=(*found.notes, note),
    )
