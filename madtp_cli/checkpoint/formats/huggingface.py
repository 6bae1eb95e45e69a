"""transformers folders of BLIP and CLIP: config.json beside safetensors or pickled weights.

The keys are ours already, and config.json says what shapes cannot; where it differs from the
published originals, a note says so. Other families are recognised, to be refused with a reason.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import BlipConfig, CLIPConfig

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.tower_shapes import BLIP_2, HEAD_WIDTH, blip_task, odd_heads, resized, split_off, tied
from madtp_cli.errors import CheckpointError

NAME = "transformers folder"
OURS = "madtp_"

#: What we take over from config.json; the rest does not bear on what the model computes.
TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps",
         "hidden_act", "projection_dim")  # fmt: skip
VISION = (*TOWER, "image_size", "patch_size")
TEXT = (*TOWER, "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
BLIP_TEXT = (*TEXT, "encoder_hidden_size", "sep_token_id", "label_smoothing")

#: Salesforce's epsilon; transformers' default is ten times as large.
BLIP_VISION_EPSILON = 1e-6

#: In older folders, instead of the true number; transformers then takes the largest token for a text's end.
OLD_END = 2

DROPPED = {"position numbers": re.compile(r"\.position_ids$")}

#: Where both towers of a CLIP have their keys, and what joins them.
CLIP_PARTS = ("vision_model", "text_model", "visual_projection", "text_projection", "logit_scale")

#: Why a family cannot be used.
SIGLIP = (
    "a SigLIP, whose image tower has no [CLS] token, only a pooling head; the token importance score reads [CLS].\n"
    "Give a CLIP."
)
FAMILIES = {"siglip": SIGLIP, "siglip2": SIGLIP, "blip-2": BLIP_2, "instructblip": BLIP_2}


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """A folder whose config.json names a model type that is not ours, or weights from such a folder."""
    if source.config is None:
        return _without_config(source)
    kind = str(source.config.get("model_type", "unknown"))
    if kind.startswith(OURS):
        return None
    if kind not in ("blip", "clip"):
        return Recognised(NAME, kind, refusal=FAMILIES.get(kind) or _unknown(source, kind))
    if not source.weights:
        raise CheckpointError(
            f"{source.path} has a config.json but no weights (model.safetensors or pytorch_model.bin).\n"
            "The folder is incomplete; copy or download it again."
        )
    kept, dropped = split_off(source.weights, DROPPED)
    try:
        found = _blip(kept, source.config, overrides) if kind == "blip" else _clip(kept, source.config, overrides)
    except (StrictDataclassError, TypeError, ValueError, AttributeError) as error:  # transformers' check of settings
        first = str(error).splitlines()[0].rstrip(":")
        raise CheckpointError(
            f"{source.path / 'config.json'} has settings that cannot be ({first}).\nCopy or download the folder again."
        ) from error
    found = dataclasses.replace(found, dropped=dropped)
    return resized(found, overrides.image_size) if found.config else found


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


def _unknown(source: Source, kind: str) -> str:
    return (
        f"a transformers folder of model type {kind} ({_architecture(source.config)}); known are blip and clip.\n"
        "Give a BLIP or a CLIP with both towers."
    )


def _architecture(config: Mapping[str, Any] | None) -> str:
    return ", ".join(map(str, (config or {}).get("architectures") or [])) or "no architecture named"


def _blip(weights: Mapping[str, Tensor], settings: Mapping[str, Any], overrides: CheckpointOverrides) -> Recognised:
    task, refusal = blip_task(weights)
    if refusal:
        return Recognised(NAME, task, refusal=refusal)
    config = BlipConfig.from_dict(copy.deepcopy(dict(settings))).to_dict()
    vision, text = _only(config["vision_config"], VISION), _only(config["text_config"], BLIP_TEXT)
    described: dict[str, Any] = {"model_type": "madtp_blip", "task": task, "vision_config": vision, "text_config": text}
    if task == "retrieval":
        described["image_text_hidden_size"] = config["image_text_hidden_size"]
    notes = _set_heads(described, overrides)
    if vision["layer_norm_eps"] != BLIP_VISION_EPSILON:
        notes.append(
            f"Vision layer-norm epsilon {vision['layer_norm_eps']:g}, as config.json says; Salesforce's own has "
            f"{BLIP_VISION_EPSILON:g}."
        )
    refusal = odd_heads(described, overrides) if overrides.head_width else None
    return Recognised(NAME, task, described, tied(weights), notes=tuple(notes), refusal=refusal)


def _clip(weights: Mapping[str, Tensor], settings: Mapping[str, Any], overrides: CheckpointOverrides) -> Recognised:
    parts = {key.split(".")[0] for key in weights}
    if absent := [part for part in CLIP_PARTS if part not in parts]:
        return Recognised(
            NAME,
            "retrieval",
            refusal=f"a CLIP ({_architecture(settings)}) without {', '.join(absent)}.\n"
            "Give a whole CLIPModel; retrieval needs both towers.",
        )
    config = CLIPConfig.from_dict(copy.deepcopy(dict(settings))).to_dict()
    vision, text = _only(config["vision_config"], VISION), _only(config["text_config"], TEXT)
    described = {
        "model_type": "madtp_clip",
        "task": "retrieval",
        "projection_dim": config["projection_dim"],
        "vision_config": vision,
        "text_config": text,
    }
    notes = _set_heads(described, overrides)
    if text["eos_token_id"] == OLD_END:
        text |= {"bos_token_id": text["vocab_size"] - 2, "eos_token_id": text["vocab_size"] - 1}
        notes.append(f"Texts end with token {text['eos_token_id']}; config.json has {OLD_END}, as older ones do.")
    for tower in (vision, text) if overrides.activation else ():
        tower["hidden_act"] = overrides.activation
    refusal = odd_heads(described, overrides) if overrides.head_width else None
    return Recognised(NAME, "retrieval", described, dict(weights), notes=tuple(notes), refusal=refusal)


def _only(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The named settings; sizes of a square are told by one side."""
    chosen = {name: config[name] for name in names if name in config}
    for name in ("image_size", "patch_size"):
        side = chosen.get(name)
        if isinstance(side, list | tuple):
            if len(set(side)) != 1:
                raise ValueError(f"{name} is {side}, and only squares are supported")
            chosen[name] = side[0]
    return chosen


def _set_heads(config: Mapping[str, Any], overrides: CheckpointOverrides) -> list[str]:
    """Give both towers the heads that were told, and say what is unusual about config.json's."""
    notes = []
    for name in ("vision", "text"):
        tower = config[f"{name}_config"]
        width, heads = tower["hidden_size"], tower["num_attention_heads"]
        usual = width // (overrides.head_width or HEAD_WIDTH)
        if heads == usual:
            continue
        if overrides.head_width:
            tower["num_attention_heads"] = max(usual, 1)
            notes.append(f"{usual} {name} heads as told; config.json says {heads}.")
        else:
            notes.append(
                f"{heads} {name} heads, as config.json says; published models of width {width} have {usual}. If that "
                f"is a forgotten setting, say --head-width {HEAD_WIDTH}."
            )
    return notes
