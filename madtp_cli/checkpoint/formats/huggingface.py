"""Folders that transformers writes for BLIP and CLIP: config.json and safetensors or pickled weights.

The tensors already have the names of this package, and config.json states what shapes do not show. Where it differs
from the published originals, a note states this. Other model types are recognised, and refused with a reason.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import BlipConfig, CLIPConfig, PretrainedConfig

from madtp_cli.checkpoint.blip_parts import BLIP_2, VISION_EPSILON, blip_task, text_convention, with_tied_weights
from madtp_cli.checkpoint.config_schema import INVALID, require_valid
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.position_embeddings import with_image_size
from madtp_cli.checkpoint.tower_shapes import AMBIGUOUS_WIDTHS, HEAD_WIDTH, divided_refusal, split_dropped
from madtp_cli.errors import CheckpointError

NAME = "transformers folder"
#: How the model types of the folders begin that madtp writes; another format recognises them.
MADTP_PREFIX = "madtp_"

#: Settings that are copied from config.json; the other ones do not change what the model computes.
TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps",
         "hidden_act", "projection_dim")  # fmt: skip
VISION = (*TOWER, "image_size", "patch_size")
TEXT = (*TOWER, "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
BLIP_TEXT = (*TEXT, "encoder_hidden_size", "sep_token_id", "label_smoothing")

#: Older CLIP folders have this number instead of the true [EOT] token; transformers then takes the largest token id
#: as the end of the text.
OLD_EOT = 2

DROPPED = {"position numbers": re.compile(r"\.position_ids$")}

#: Parts of a whole CLIP, by the beginning of their keys.
CLIP_PARTS = ("vision_model", "text_model", "visual_projection", "text_projection", "logit_scale")

SIGLIP = (
    "a SigLIP, which has no [CLS] token but a pooling head; the importance score needs the [CLS] token.\nGive a CLIP."
)
#: Why a model type cannot be used.
REFUSED = {"siglip": SIGLIP, "siglip2": SIGLIP, "blip-2": BLIP_2, "instructblip": BLIP_2}


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
    """

    config_class: type[PretrainedConfig]
    text_settings: tuple[str, ...]
    task: Callable[[Mapping[str, Tensor], Mapping[str, Any]], tuple[str, str | None]]
    settings: Mapping[str, tuple[str, ...]]
    adjust: Callable[[dict[str, Any], CheckpointOverrides], list[str]]
    complete: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder of transformers, or the weights of such a folder without config.json."""
    if source.config is None:
        return _without_config(source)
    name = str(source.config.get("model_type", "unknown"))
    if name.startswith(MADTP_PREFIX):
        return None
    if name not in MODEL_TYPES:
        return Recognised(NAME, name, refusal=REFUSED.get(name) or _unknown_refusal(source, name))
    if not source.weights:
        raise CheckpointError(
            f"{source.path} has a config.json but no weights (model.safetensors or pytorch_model.bin).\n"
            "The folder is incomplete: copy or download it again."
        )
    kept, dropped = split_dropped(source.weights, DROPPED)
    try:
        recognised = _known(name, kept, source, overrides)
    except (StrictDataclassError, *INVALID) as error:  # transformers checks the settings
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")[:200]
        raise CheckpointError(
            f"{source.path / 'config.json'} has invalid settings ({first}).\nCopy or download the folder again."
        ) from error
    recognised = dataclasses.replace(recognised, dropped=dropped)
    return with_image_size(recognised, overrides.image_size) if recognised.config else recognised


def _without_config(source: Source) -> Recognised | None:
    parts = {key.split(".")[0] for key in source.weights}
    if not {"vision_model", "text_model"} & parts:
        return None
    refusal = "weights that transformers saved, without their config.json.\nGive the folder that has both."
    if any(key.startswith("vision_model.head.probe") for key in source.weights):
        refusal = SIGLIP
    elif "query_tokens" in parts:
        refusal = BLIP_2
    return Recognised("transformers weights", "unknown", refusal=refusal)


def _unknown_refusal(source: Source, name: str) -> str:
    return (
        f"a transformers folder of model type {name} ({_architecture(source.config)}), which is not supported.\n"
        f"Give a model of type {' or '.join(MODEL_TYPES)} with both towers."
    )


def _architecture(config: Mapping[str, Any] | None) -> str:
    return ", ".join(map(str, (config or {}).get("architectures") or [])) or "no architecture named"


def _known(name: str, weights: Mapping[str, Tensor], source: Source, overrides: CheckpointOverrides) -> Recognised:
    """Return a checkpoint of a supported model type, with our configuration."""
    model_type, settings, where = MODEL_TYPES[name], source.config or {}, source.path / "config.json"
    task, refusal = model_type.task(weights, settings)
    if refusal:
        return Recognised(NAME, task, refusal=refusal)
    stored = model_type.config_class.from_dict(copy.deepcopy(dict(settings))).to_dict()
    config: dict[str, Any] = {
        "model_type": f"{MADTP_PREFIX}{name}",
        "task": task,
        "vision_config": _selected(stored["vision_config"], VISION),
        "text_config": _selected(stored["text_config"], model_type.text_settings),
        **{setting: stored[setting] for setting in model_type.settings.get(task, ())},
    }
    require_valid(config, where)
    notes = [*_set_heads(config, overrides), *model_type.adjust(config, overrides)]
    refusal = divided_refusal(config, overrides)
    return Recognised(NAME, task, config, model_type.complete(weights), notes=tuple(notes), refusal=refusal)


def _selected(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the named settings. The size of a square may be one number or a pair; return one number."""
    selected = {name: config[name] for name in names if name in config}
    for name in ("image_size", "patch_size"):
        side = selected.get(name)
        if isinstance(side, list | tuple):
            if len(set(side)) != 1:
                raise ValueError(f"{name} is {side}, and only squares are supported")
            selected[name] = side[0]
    return selected


def _set_heads(config: Mapping[str, Any], overrides: CheckpointOverrides) -> list[str]:
    """Apply the head width that the user gave to both towers; return notes about unusual numbers of heads."""
    notes = []
    for name in ("vision", "text"):
        tower = config[f"{name}_config"]
        width, heads, given = tower["hidden_size"], tower["num_attention_heads"], overrides.head_width_of(name)
        expected = width // (given or HEAD_WIDTH)
        if heads == expected or (given is None and width in AMBIGUOUS_WIDTHS):
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


def _blip_task(weights: Mapping[str, Tensor], _: Mapping[str, Any]) -> tuple[str, str | None]:
    return blip_task(weights)


def _adjust_blip(config: dict[str, Any], overrides: CheckpointOverrides) -> list[str]:
    convention, note = text_convention(config["task"], overrides, transformers=True)
    config |= convention
    notes = [note] if note else []
    epsilon = config["vision_config"]["layer_norm_eps"]
    if epsilon == VISION_EPSILON:
        return notes
    return [
        *notes,
        f"The layer-norm epsilon of the vision tower is {epsilon:g}, as config.json states; Salesforce's models have "
        f"{VISION_EPSILON:g}.",
    ]


def _clip_task(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[str, str | None]:
    parts = {key.split(".")[0] for key in weights}
    absent = [part for part in CLIP_PARTS if part not in parts]
    if not absent:
        return "retrieval", None
    return "retrieval", (
        f"a CLIP ({_architecture(settings)}) without {', '.join(absent)}.\n"
        "Give a whole CLIPModel; retrieval needs both towers."
    )


def _adjust_clip(config: dict[str, Any], overrides: CheckpointOverrides) -> list[str]:
    """Correct the [EOT] token of older folders, and set the activation that the user gave."""
    notes, text = [], config["text_config"]
    if text["eos_token_id"] == OLD_EOT:
        text |= {"bos_token_id": text["vocab_size"] - 2, "eos_token_id": text["vocab_size"] - 1}
        notes.append(f"Texts end with token {text['eos_token_id']}; config.json states {OLD_EOT}, as older folders do.")
    if overrides.activation:
        for tower in (config["vision_config"], text):
            tower["hidden_act"] = overrides.activation
    return notes


#: The supported model types of transformers.
MODEL_TYPES = {
    "blip": ModelType(
        config_class=BlipConfig,
        text_settings=BLIP_TEXT,
        task=_blip_task,
        settings={"retrieval": ("image_text_hidden_size",)},
        adjust=_adjust_blip,
        complete=with_tied_weights,
    ),
    "clip": ModelType(
        config_class=CLIPConfig,
        text_settings=TEXT,
        task=_clip_task,
        settings={"retrieval": ("projection_dim",)},
        adjust=_adjust_clip,
        complete=dict,
    ),
}
