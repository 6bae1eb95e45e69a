"""Find out what a checkpoint is, and compare its tensors with those of the model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from madtp_cli import models
from madtp_cli.checkpoint import formats, tensors
from madtp_cli.checkpoint.config_schema import INVALID
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised
from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is, and how its tensors compare with those of the model.

    If the format refuses the checkpoint, nothing is compared.

    Attributes:
        source: Path of the checkpoint.
        format: Name of the format.
        task: Task of the checkpoint.
        towers: Sizes of each tower.
        parameters: Number of weights that the model uses; tied weights count once.
        precision: Data types of the tensors.
        matched: Number of tensors with the key and the shape that the model needs.
        missing: Keys that the model needs and the checkpoint lacks.
        unexpected: Keys of the checkpoint that the model does not have.
        reshaped: Keys with different shapes: in the file, and in the model.
        dropped: Keys of the file that no model needs, by the reason.
        notes: What was assumed or converted, as full sentences.
        refusal: Why the checkpoint cannot be loaded; None if it can.
    """

    source: str
    format: str
    task: str
    towers: dict[str, dict[str, int]] = field(default_factory=dict)
    parameters: int = 0
    precision: str = ""
    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusal: str | None = None


def inspect(
    source: Path,
    *,
    head_width: int | Mapping[str, int] | None = None,
    image_size: int | None = None,
    activation: str | None = None,
    weights: str | None = None,
) -> Inspection:
    """Find out what a checkpoint is, from its keys and shapes alone.

    Args:
        source: A checkpoint file or folder.
        head_width: Width of one attention head, for both towers or by tower; by default 64.
        image_size: Side of the image in pixels; by default the checkpoint's.
        activation: Activation of CLIP's feed-forward layers, "quick_gelu" or "gelu", if no file states it.
        weights: "raw" or "ema": which weights to take from a file that has averaged copies too.

    Raises:
        CheckpointError: There is no checkpoint, or its format is unknown.
    """
    source = Path(source)
    overrides = CheckpointOverrides(head_width, image_size, activation, weights)
    recognised = recognise(source, overrides, values=False)
    inspection = compare(source, recognised)
    return dataclasses.replace(inspection, notes=[*inspection.notes, *_pruning(recognised.config)])


def recognise(source: Path, overrides: CheckpointOverrides, *, values: bool = True) -> Recognised:
    """Read a checkpoint and recognise its format; without `values`, tensors may be on the meta device."""
    content = read(source, values=values, weights=overrides.weights)
    recognised = formats.recognise(content, overrides)
    tensors.require_numbers(source, recognised.weights)
    return recognised


def compare(source: Path, recognised: Recognised) -> Inspection:
    """Compare the tensors of a recognised checkpoint with those of the model it is for."""
    inspection = Inspection(
        str(source),
        recognised.format,
        recognised.task,
        towers=_towers(recognised.config),
        parameters=sum(value.numel() for value in recognised.weights.values()),
        precision=", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in recognised.weights.values()})),
        dropped=dict(recognised.dropped),
        notes=list(recognised.notes),
        refusal=recognised.refusal,
    )
    if recognised.refusal:
        return inspection
    compared = _with_keys(inspection, recognised)
    return dataclasses.replace(compared, refusal=tensors.extra_refusal(compared.unexpected, recognised.weights))


def _pruning(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the pruning of a checkpoint; nothing for a dense one."""
    settings = config.get("madtp")
    if not isinstance(settings, Mapping) or not isinstance(settings.get("threshold_scale"), float):
        return []
    text = f"It is pruned: --method {settings.get('method')}, threshold scale {settings.get('threshold_scale'):.4g}."
    if curve := settings.get("curve"):
        low, high = curve[-1][1], curve[0][1]
        text += f" --gflops-budget can be set to {low:.3f} to {high:.3f} of the dense GFLOPs without training."
    return [text]


def _with_keys(inspection: Inspection, recognised: Recognised) -> Inspection:
    """Add the comparison of the keys and shapes."""
    weights, expected = recognised.weights, _expected_tensors(inspection.source, recognised.config)
    common = sorted(expected.keys() & weights.keys())
    shapes = {key: (list(weights[key].shape), list(expected[key].shape)) for key in common}
    reshaped = {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}
    tied = models.family_of(recognised.config).tied
    return dataclasses.replace(
        inspection,
        parameters=sum(weights[key].numel() for key in common if key not in tied),
        matched=len(common) - len(reshaped),
        missing=[key for key in expected if key not in weights],
        unexpected=[key for key in weights if key not in expected],
        reshaped=reshaped,
    )


def _expected_tensors(source: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of the model by key, on the meta device, where they need no memory."""
    try:
        with torch.device("meta"):
            return model_class(config)(model_config(config)).state_dict()
    except (*INVALID, RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"{source}: its settings do not describe a valid model ({error}).\nCorrect config.json, or copy it again."
        ) from error


def model_class(config: Mapping[str, Any]) -> Any:
    """Return the model class of a configuration.

    Raises:
        CheckpointError: There is no model for its family and task.
    """
    kind = _kind(config)
    if kind not in models.kinds():
        known = ", ".join(name.replace(".", " for ") for name in models.kinds())
        raise CheckpointError(f"There is no model {kind.replace('.', ' for ')}.\nGive one of these: {known}.")
    return models.get(kind)


def model_config(config: Mapping[str, Any]) -> Any:
    """Return an object of the model's configuration class with these fields.

    Raises:
        CheckpointError: A field is invalid.
    """
    kind = model_class(config).config_class
    try:
        return kind.from_dict(copy.deepcopy(dict(config)))
    except (StrictDataclassError, *INVALID) as error:
        raise CheckpointError(
            f"The settings of the model are invalid ({error}).\nCopy its config.json again."
        ) from error


def _kind(config: Mapping[str, Any]) -> str:
    """Return the family and the task of a configuration, such as "blip.nlvr2"."""
    return f"{config['model_type'].removeprefix('madtp_')}.{config.get('task')}"


def _towers(config: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    if not config:
        return {}
    # A checkpoint without a model, such as a pre-trained BLIP, is described by the fields that it has.
    fields = model_config(config).to_dict() if _kind(config) in models.kinds() else config
    shown = models.family_of(config).tower_sizes
    try:
        towers = {
            tower: {size: fields[f"{tower}_config"][attribute] for size, attribute in shown[tower].items()}
            for tower in models.towers_of(config)
        }
    except KeyError as error:
        raise CheckpointError(
            f"The settings of the model do not state {error}, for the task {str(config.get('task'))[:60]}.\n"
            "Copy its config.json again."
        ) from error
    tokens = models.family_of(config).image_tokens(SimpleNamespace(**fields["vision_config"]))
    towers["vision"]["tokens"] = tokens
    return towers
