"""File formats: what kind of checkpoint is this?

Every module here is one format and has

    NAME                      what the format is called
    recognise(source, told)   `Recognised` if the content is of this format, else None

Content decides, never a file's name, and at most one format claims a source. A format that
is known but cannot be used is still recognised, with a `refusal`. Adding a format is adding
one file; those whose name begins with an underscore are helpers.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.errors import CheckpointError, UsageError

#: Keys that quantising tools (bitsandbytes, GPTQ, AWQ, compressed-tensors) put beside or in place of a weight.
QUANTISED = re.compile(r"\.(SCB|absmax|quant_map|qweight|qzeros|g_idx|weight_packed|weight_scale)$")


@dataclass(frozen=True)
class Source:
    """What was read from a file or folder.

    `container` is pickle, safetensors, torchscript or folder; `weights` are its tensors, unwrapped
    and under the keys in the file; `extras` stood beside them (epoch, temperature); `config` is a
    folder's config.json.
    """

    path: Path
    container: str
    weights: Mapping[str, Tensor]
    extras: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CheckpointOverrides:
    """What the user says about a checkpoint that its file does not.

    `head_width` is the width of one attention head in both towers; `image_size`, in pixels, has the
    position embeddings resized; `activation` is gelu or quick_gelu, which CLIP's files do not tell apart.
    """

    head_width: int | None = None
    image_size: int | None = None
    activation: str | None = None


@dataclass(frozen=True)
class Recognised:
    """A checkpoint in our terms.

    Args:
        format: NAME of the format, or a longer form of it.
        task: `nlvr2`, `vqa`, `caption`, `retrieval`, or what else the checkpoint was made for.
        config: Fields of the configuration that `model_type` names, `madtp_blip` (transformers' BlipConfig and
            more) or `madtp_clip` (CLIPConfig); empty if we have no such model.
        weights: Tensors under the keys of transformers' class for the task.
        dropped: Keys of the file that no model needs, by the reason.
        fresh: Parts of our keys that the file cannot have; such parameters start from random values.
        notes: What was assumed, converted or lost, in sentences.
        refusal: Why it cannot be loaded, and what to do; None if it can.
        dictionary: MADTP's learned dictionary [size, width], where the file has one of another rule.
    """

    format: str
    task: str
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    dropped: Mapping[str, list[str]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    dictionary: Tensor | None = None


class Format(Protocol):
    """What a module in this package offers."""

    NAME: str

    def recognise(self, source: Source, overrides: CheckpointOverrides) -> Recognised | None:
        """The checkpoint in our terms, or None if it is of another format."""


def all_formats() -> list[Format]:
    """Every format, by file name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised:
    """What a source is, by its content.

    Raises:
        CheckpointError: No format claims it.
    """
    known = all_formats()
    if refusal := _quantised(source):
        return Recognised("quantised weights", "unknown", refusal=refusal)
    for one in known:
        if (found := one.recognise(source, overrides)) is not None:
            return found
    first = ", ".join(sorted(source.weights)[:3])
    raise CheckpointError(
        f"{source.path}: {len(source.weights)} tensors of a model that is not known ({first}, ...).\n"
        f"Known are {', '.join(one.NAME for one in known)}."
    )


def _quantised(source: Source) -> str | None:
    """Why quantised weights cannot be loaded; None if they are of full or half precision."""
    sign = next((key for key in source.weights if QUANTISED.search(key)), None) or next(
        (key for key, value in source.weights.items() if key.endswith(".weight") and value.element_size() == 1), None
    )
    if source.config and source.config.get("quantization_config"):
        sign = "quantization_config in its config.json"
    if sign is None:
        return None
    return f"its weights are quantised ({sign}); they could not be fine-tuned.\nGive the model in float32 or float16."


def resize_positions(positions: Tensor, image_size: int, patch_size: int) -> Tensor:
    """Position embeddings [1, 1 + patches, width] for another image size; [CLS] keeps its own.

    Source: BLIP resizes them on load, bicubically over the grid, arXiv:2201.12086.
    """
    if image_size % patch_size:
        raise UsageError(f"Image size {image_size} is no multiple of the patch size {patch_size}.")
    first, patches = positions[:, :1], positions[:, 1:]
    old, new = grid_side(patches.shape[1]), image_size // patch_size
    if old == new:
        return positions
    grid = patches.float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([first, resized.flatten(2).transpose(1, 2).to(first.dtype)], 1)


def grid_side(patches: int) -> int:
    """Side of the square grid that has so many patches.

    >>> grid_side(576)
    24
    """
    side = round(patches**0.5)
    if side * side != patches:
        raise CheckpointError(f"{patches} patch positions are no square grid; only square images are supported.")
    return side
