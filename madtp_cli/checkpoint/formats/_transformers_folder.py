"""What the formats for folders of transformers share: config.json, which states what shapes do not show."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PretrainedConfig

from madtp_cli import models
from madtp_cli.checkpoint.config_schema import INVALID, require_valid
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.position_embeddings import with_image_size
from madtp_cli.checkpoint.quiet import without_warnings
from madtp_cli.checkpoint.tower_shapes import AMBIGUOUS_WIDTHS, HEAD_WIDTH, divided_refusal, split_dropped
from madtp_cli.errors import CheckpointError

NAME = "transformers folder"

#: Settings that are copied from config.json; the other ones do not change what the model computes.
TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps",
         "hidden_act", "projection_dim")  # fmt: skip
VISION = (*TOWER, "image_size", "patch_size")
TEXT = (*TOWER, "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")

DROPPED = {"position numbers": re.compile(r"\.position_ids$")}


def set_activation(config: dict[str, Any], overrides: CheckpointOverrides) -> list[str]:
    """Set the activation that the user gave in both towers, in place. There is no note about it."""
    if overrides.activation:
        for tower in ("vision_config", "text_config"):
            config[tower]["hidden_act"] = overrides.activation
    return []


@dataclass(frozen=True)
class ModelType:
    """How the folders of one model type of transformers are read.

    Attributes:
        config_class: The configuration class of transformers.
        text_settings: Settings of the text tower that are copied.
        task: Returns the task and the refusal, from the tensors and config.json.
        settings: Further settings of our configuration by task, copied from transformers' configuration.
        adjust: Corrects our configuration in place and returns the notes about it.
        complete: Adds the tensors that the folder leaves out.
        correct: Corrects the fields of config.json in place before they are read.
        family: The family, if it has not the name of the model type.
        format: Name of the format, as shown to the user.
    """

    config_class: type[PretrainedConfig]
    text_settings: tuple[str, ...]
    task: Callable[[Mapping[str, Tensor], Mapping[str, Any]], tuple[str, str | None]]
    settings: Mapping[str, tuple[str, ...]]
    adjust: Callable[[dict[str, Any], CheckpointOverrides], list[str]]
    complete: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict
    correct: Callable[[dict[str, Any]], None] = lambda settings: None
    family: str = ""
    format: str = NAME


def recognise_type(name: str, model_type: ModelType, source: Source, overrides: CheckpointOverrides) -> Recognised:
    """Recognise a folder whose config.json has the model type `name`.

    Raises:
        CheckpointError: The folder is incomplete, or its settings are invalid.
    """
    require_weights(source)
    with reported_settings(source):
        recognised = _known(name, model_type, source, overrides)
    return completed(recognised, source, overrides, model_type.adjust) if recognised.config else recognised


def completed(
    recognised: Recognised,
    source: Source,
    overrides: CheckpointOverrides,
    adjust: Callable[[dict[str, Any], CheckpointOverrides], list[str]] = set_activation,
) -> Recognised:
    """Return a checkpoint without the tensors that no model needs, with what the user gave in its configuration.

    Args:
        recognised: A checkpoint with the configuration that config.json states.
        source: Its folder, for messages.
        overrides: Settings that the user gave.
        adjust: See `ModelType`.

    Raises:
        CheckpointError: The folder has invalid settings.
    """
    config = copy.deepcopy(dict(recognised.config))
    require_valid(config, source.path / "config.json")
    kept, dropped = split_dropped(recognised.weights, DROPPED)
    with reported_settings(source):
        notes = (*recognised.notes, *_set_heads(config, overrides), *adjust(config, overrides))
    refusal = recognised.refusal or divided_refusal(config, overrides)
    changed = dataclasses.replace(
        recognised, config=config, weights=kept, dropped=dropped, notes=notes, refusal=refusal
    )
    return with_image_size(changed, overrides.image_size)


def require_weights(source: Source) -> None:
    """Raise CheckpointError if a folder has no weights."""
    if not source.weights:
        raise CheckpointError(
            f"{source.path} has a config.json but no weights (model.safetensors or pytorch_model.bin).\n"
            "The folder is incomplete: copy or download it again."
        )


@contextmanager
def reported_settings(source: Source) -> Iterator[None]:
    """Raise CheckpointError for what transformers raises about the settings of a folder, and hide its warnings."""
    try:
        with without_warnings():
            yield
    except (StrictDataclassError, *INVALID) as error:  # transformers checks the settings
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")[:200]
        raise CheckpointError(
            f"{source.path / 'config.json'} has invalid settings ({first}).\nCopy or download the folder again."
        ) from error


def architecture(config: Mapping[str, Any] | None) -> str:
    """Return the architectures that a config.json names."""
    named = (config or {}).get("architectures")
    names = [str(name)[:60] for name in named[:3]] if isinstance(named, list) else []
    return ", ".join(names) or "no architecture named"


def _known(
    name: str,
    model_type: ModelType,
    source: Source,
    overrides: CheckpointOverrides,
) -> Recognised:
    """Return a checkpoint of a supported model type, with our configuration."""
    settings = copy.deepcopy(dict(source.config or {}))
    task, refusal = model_type.task(source.weights, settings)
    if refusal:
        return Recognised(model_type.format, task, refusal=refusal)
    model_type.correct(settings)
    stored = model_type.config_class.from_dict(settings).to_dict()
    config: dict[str, Any] = {
        "model_type": models.families()[model_type.family or name].model_type,
        "task": task,
        "vision_config": selected(stored["vision_config"], VISION),
        "text_config": selected(stored["text_config"], model_type.text_settings),
        **{setting: stored[setting] for setting in model_type.settings.get(task, ()) if setting in stored},
    }
    return Recognised(model_type.format, task, config, model_type.complete(source.weights))


def selected(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the named settings that are there, with one number for the size of a square that is a pair.

    Raises:
        ValueError: The numbers of a pair differ.
    """
    selected = {name: config[name] for name in names if name in config}
    for name in ("image_size", "patch_size"):
        side = selected.get(name)
        if isinstance(side, list | tuple):
            if len(set(side)) != 1:
                raise ValueError(f"{name} is {side}, and only squares are supported")
            selected[name] = side[0]
    return selected


def _set_heads(config: Mapping[str, Any], overrides: CheckpointOverrides) -> list[str]:
    """Apply the head width that the user gave to the model's towers; return notes about unusual numbers of heads."""
    notes = []
    for name in models.towers_of(config):
        tower = config[f"{name}_config"]
        width, heads, given = tower["hidden_size"], tower["num_attention_heads"], overrides.head_width_of(name)
        expected = width // (given or HEAD_WIDTH)
        published = models.family_of(config).head_widths
        usual = width in AMBIGUOUS_WIDTHS or any(width == heads * head_width for head_width in published)
        if heads == expected or (given is None and usual):
            continue
        if given:
            tower["num_attention_heads"] = max(expected, 1)
            notes.append(
                f"The {name} tower has {expected} heads, from the given head width; config.json states {heads}."
            )
        else:
            notes.append(
                f"The {name} tower has {heads} heads of width {width / heads:g}, as config.json states; most published "
                f"models have heads of width {HEAD_WIDTH}."
            )
    return notes
