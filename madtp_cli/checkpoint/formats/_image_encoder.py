"""What the formats for image encoders alone share: transformers' CLIPVisionModel and SiglipVisionModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

TASK = "embedding"
#: How the keys of the image tower begin in a whole model. transformers leaves it out in an image tower alone.
TOWER = "vision_model."
#: The key of the projection of CLIP's features.
PROJECTION = "visual_projection.weight"


def task(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the task of an image encoder."""
    return TASK, None


def as_whole(settings: dict[str, Any]) -> None:
    """Change the fields of an image encoder's config.json in place to those of a whole model, without a text tower."""
    vision = dict(settings)
    settings.clear()
    settings["vision_config"] = vision
    if "projection_dim" in vision:
        settings["projection_dim"] = vision["projection_dim"]


def with_tower(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the keys of a whole model."""
    if any(key.startswith(TOWER) for key in weights):
        return dict(weights)
    return {f"{TOWER}{key}": value for key, value in weights.items()}
