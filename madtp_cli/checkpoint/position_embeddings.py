"""Position embeddings of the image tower, and how they are resized to another image size."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli import models
from madtp_cli.checkpoint.formats import Recognised
from madtp_cli.errors import CheckpointError, UsageError


def with_image_size(recognised: Recognised, image_size: int | None, *, antialias: bool = False) -> Recognised:
    """Change a checkpoint to another image size, and add a note about it.

    Args:
        recognised: The checkpoint; it is not modified.
        image_size: Side of the image in pixels; None leaves the checkpoint as it is.
        antialias: See `resize_positions`.

    Raises:
        UsageError: The image size is not a multiple of the patch size.
    """
    vision = recognised.config["vision_config"]
    if image_size is None or vision["image_size"] == image_size:
        return recognised
    family = models.family_of(recognised.config)
    key = family.position_key
    old = recognised.weights[key]
    # BLIP's embeddings have a batch axis, CLIP's have none.
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    leading = family.image_tokens(SimpleNamespace(**vision)) - patches
    new = resize_positions(old.reshape(1, -1, old.shape[-1]), image_size, vision["patch_size"], leading, antialias)
    note = f"Position embeddings are resized from {vision['image_size']} to {image_size} pixels."
    return dataclasses.replace(
        recognised,
        config={**recognised.config, "vision_config": {**vision, "image_size": image_size}},
        weights={**recognised.weights, key: new.reshape(*old.shape[:-2], -1, old.shape[-1])},
        notes=(*recognised.notes, note),
    )


def resize_positions(
    positions: Tensor, image_size: int, patch_size: int, leading: int = 1, antialias: bool = False
) -> Tensor:
    """Resize position embeddings to another image size; the embedding of [CLS] does not change.

    The embeddings of the patches are interpolated (bicubic) over the grid of patches.

    Args:
        positions: Position embeddings [1, leading + patches, width].
        image_size: Side of the image in pixels.
        patch_size: Side of a patch in pixels.
        leading: Tokens before the patches: 1 for [CLS], else 0.
        antialias: Interpolate as OpenCLIP does: with a wider and smoother kernel. BLIP and transformers do not.

    Returns:
        Position embeddings [1, leading + (image_size / patch_size)^2, width].

    Raises:
        UsageError: The image size is not a multiple of the patch size.

    Source: BLIP, arXiv:2201.12086.
    """
    if image_size % patch_size:
        raise UsageError(
            f"Image size {image_size} is not a multiple of the patch size {patch_size}.\nGive a multiple of it."
        )
    cls_position, patches = positions[:, :leading], positions[:, leading:]
    old, new = grid_side(patches.shape[1]), image_size // patch_size
    if old == new:
        return positions
    grid = patches.float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, (new, new), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([cls_position, resized.flatten(2).transpose(1, 2).to(cls_position.dtype)], 1)


def grid_side(patches: int) -> int:
    """Return the side of the square grid with this number of patches.

    Raises:
        CheckpointError: The number is not a square.

    >>> grid_side(576)
    24
    """
    side = round(max(patches, 0) ** 0.5)
    if side < 1 or side * side != patches:
        raise CheckpointError(
            f"The checkpoint has position embeddings of {patches} patches, which is not a square grid.\n"
            "Give a model for square images."
        )
    return side
