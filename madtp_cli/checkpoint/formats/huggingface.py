"""Folders that transformers writes for BLIP and CLIP: config.json and safetensors or pickled weights.

The tensors already have the names of this package, and config.json states what shapes do not show. Where it differs
from the published originals, a note states this. Other model types are recognised, and refused with a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import BlipConfig, CLIPConfig

from madtp_cli.checkpoint.blip_parts import BLIP_2, VISION_EPSILON, blip_task, text_convention, with_tied_weights
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, _image_encoder
from madtp_cli.checkpoint.formats._transformers_folder import (
    NAME,
    TEXT,
    ModelType,
    architecture,
    recognise_type,
    set_activation,
)

#: How the model types of the folders begin that madtp writes; another format recognises them.
MADTP_PREFIX = "madtp_"

BLIP_TEXT = (*TEXT, "encoder_hidden_size", "sep_token_id", "label_smoothing")

#: Older CLIP folders have this number instead of the true [EOT] token; transformers then takes the largest token id
#: as the end of the text.
OLD_EOT = 2

#: Parts of a whole CLIP, by the beginning of their keys.
CLIP_PARTS = ("vision_model", "text_model", "visual_projection", "text_projection", "logit_scale")

#: Why a model type cannot be used.
REFUSED = {"instructblip": BLIP_2}
EVA_CLIP = "an EVA-CLIP, whose blocks differ from those of CLIP.\nGive a CLIP of OpenAI or OpenCLIP, or a SigLIP."


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder of transformers, or the weights of such a folder without config.json."""
    if source.config is None:
        return _without_config(source)
    name = str(source.config.get("model_type", "unknown"))[:60]
    if name.startswith(MADTP_PREFIX):
        return None
    if name not in MODEL_TYPES:
        return Recognised(NAME, name, refusal=REFUSED.get(name) or _unknown_refusal(source, name), fallback=True)
    recognised = recognise_type(name, MODEL_TYPES[name], source, overrides)
    if recognised.task != _image_encoder.TASK or not recognised.config:
        return recognised
    projects = _image_encoder.PROJECTION in recognised.weights
    return replace(recognised, config={**recognised.config, "image_projection": projects})


def _without_config(source: Source) -> Recognised | None:
    parts = {key.split(".")[0] for key in source.weights}
    if not {"vision_model", "text_model"} & parts:
        return None
    refusal = "weights that transformers saved, without their config.json.\nGive the folder that has both."
    if "query_tokens" in parts:
        refusal = BLIP_2
    return Recognised("transformers weights", "unknown", refusal=refusal, fallback=True)


def _unknown_refusal(source: Source, name: str) -> str:
    return (
        f"a transformers folder of model type {name} ({architecture(source.config)}), which is not supported.\n"
        f"Give a model of type {' or '.join(MODEL_TYPES)} with both towers."
    )


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
    if "EVACLIPModel" in architecture(settings):
        return "retrieval", EVA_CLIP
    parts = {key.split(".")[0] for key in weights}
    absent = [part for part in CLIP_PARTS if part not in parts]
    if "vision_model" in parts and parts <= {"vision_model", "visual_projection"}:
        return _image_encoder.TASK, None
    if not absent:
        return "retrieval", None
    return "retrieval", (
        f"a CLIP ({architecture(settings)}) without {', '.join(absent)}.\n"
        "Give a whole CLIPModel; retrieval needs both towers."
    )


def _adjust_clip(config: dict[str, Any], overrides: CheckpointOverrides) -> list[str]:
    """Correct the [EOT] token of older folders, and set the activation that the user gave."""
    notes, text = [], config["text_config"]
    if text["eos_token_id"] == OLD_EOT:
        text |= {"bos_token_id": text["vocab_size"] - 2, "eos_token_id": text["vocab_size"] - 1}
        notes.append(f"Texts end with token {text['eos_token_id']}; config.json states {OLD_EOT}, as older folders do.")
    return [*notes, *set_activation(config, overrides)]


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
        settings={"retrieval": ("projection_dim",), _image_encoder.TASK: ("projection_dim",)},
        adjust=_adjust_clip,
    ),
    "clip_vision_model": ModelType(
        config_class=CLIPConfig,
        text_settings=TEXT,
        task=_image_encoder.task,
        settings={_image_encoder.TASK: ("projection_dim",)},
        adjust=_adjust_clip,
        complete=_image_encoder.with_tower,
        correct=_image_encoder.as_whole,
        family="clip",
    ),
}
