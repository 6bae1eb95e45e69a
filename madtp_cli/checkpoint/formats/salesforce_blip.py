"""BLIP checkpoints of Salesforce: `{"model": ...}` with the original names.

The sizes are read from the shapes of the tensors. What shapes do not show is taken from the published models, or
given by the user.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from madtp_cli.checkpoint.blip_parts import TEXT_EPSILON, VISION_EPSILON, blip_task, text_convention, with_tied_weights
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.position_embeddings import grid_side, with_image_size
from madtp_cli.checkpoint.tower_shapes import (
    TRAINING_ONLY,
    head_count,
    head_width_note,
    head_width_refusal,
    layer_count,
    missing_tensor_error,
    pruned_weights_refusal,
    shape,
    split_dropped,
    training_data_set,
    training_notes,
)

NAME = "Salesforce BLIP"

#: CLIP's normalisation, which every BLIP uses (data/*.py of the original).
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

#: How the keys of these files begin. A BLIP-2 and parts of a BLIP are recognised too, to be refused with a reason.
KEY_STARTS = ("visual_encoder.", "text_encoder.embeddings.", "text_decoder.bert.", "Qformer.")

#: What `blip_task` returns for files without the tensors that show the sizes.
WITHOUT_SIZES = ("albef", "blip-2", "text", "images")

#: Tasks with a text decoder, and the label smoothing of its training (models/med.py of the original).
DECODER_TASKS = ("vqa", "caption")
LABEL_SMOOTHING = 0.1

#: Lowest and highest temperature of the contrastive loss (models/blip_retrieval.py of the original).
TEMPERATURES = (0.001, 0.5)

#: Original name of each module of the image tower, and the name in transformers. Text towers and heads have the same
#: names in both.
RENAMED = (
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.norm.", "vision_model.post_layernorm."),
    (".attn.qkv.", ".self_attn.qkv."),
    (".attn.proj.", ".self_attn.projection."),
    (".norm1.", ".layer_norm1."),
    (".norm2.", ".layer_norm2."),
    ("visual_encoder.blocks.", "vision_model.encoder.layers."),
)

#: Keys that only training needs, or that are no weights.
DROPPED = TRAINING_ONLY | {
    "temperature of the contrastive loss": re.compile(r"^temp$"),
    "position numbers": re.compile(r"\.position_ids$"),
    "masked language modelling": re.compile(r"^text_encoder\.(cls|pooler)\."),
}


def to_transformers(key: str) -> str:
    """Convert an original key to the name of transformers.

    >>> to_transformers("visual_encoder.blocks.0.norm1.bias")
    'vision_model.encoder.layers.0.layer_norm1.bias'
    """
    if not key.startswith("visual_encoder."):
        return key
    for original, renamed in RENAMED:
        key = key.replace(original, renamed)
    return key


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a state dict with the original names. MADTP's result files have another format."""
    if "space_dict" in source.weights or source.config is not None or not _has_original_names(source.weights):
        return None
    task, refusal = blip_task(source.weights)
    if task in WITHOUT_SIZES:
        return Recognised(NAME, task, refusal=refusal)
    kept, dropped = split_dropped(source.weights, DROPPED)
    weights = with_tied_weights({to_transformers(key): value for key, value in kept.items()})
    try:
        config = {
            "model_type": "madtp_blip",
            "task": task,
            **_config(task, weights, overrides),
            "trained_on": training_data_set(source),
        }
    except KeyError as error:
        raise missing_tensor_error(source, "BLIP", error) from error
    config |= _temperature(source.weights) if task == "retrieval" else {}
    refusal = refusal or _pruned_refusal(weights, config) or head_width_refusal(config, overrides)
    convention, note = text_convention(task, overrides, transformers=False)
    config |= convention
    notes = (_assumptions(overrides, task), *filter(None, [note]), *training_notes(source))
    recognised = Recognised(NAME, task, config, weights, dropped, notes=notes, refusal=refusal)
    return with_image_size(recognised, overrides.image_size)


def _has_original_names(keys: Iterable[str]) -> bool:
    keys = tuple(keys)
    original = any(key.startswith(KEY_STARTS) for key in keys)
    return original and not any(key.startswith("vision_model.") for key in keys)


def _assumptions(overrides: CheckpointOverrides, task: str) -> str:
    smoothing = f", label smoothing {LABEL_SMOOTHING}" if task in DECODER_TASKS else ""
    return (
        f"The file does not state everything. Used are: {head_width_note(overrides, 'published BLIP')}, activation "
        f"GELU, layer-norm epsilon {VISION_EPSILON:g} (vision) and {TEXT_EPSILON:g} (text){smoothing}."
    )


def _config(task: str, weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    """Return the configuration from the shapes of the tensors, and from the published models."""
    config: dict[str, Any] = {
        "vision_config": _vision_config(weights, overrides),
        "text_config": _text_config(weights, overrides),
    }
    if task in DECODER_TASKS:
        config["text_config"]["label_smoothing"] = LABEL_SMOOTHING
    if task == "nlvr2":
        config["merge_from"] = _merge_from(weights, config["text_config"]["num_hidden_layers"])
    if task == "retrieval":
        config["image_text_hidden_size"] = shape(weights, "vision_proj.weight", 2)[0]
    return config


def _vision_config(weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    tower = "vision_model."
    width, _, patch, _ = shape(weights, tower + "embeddings.patch_embedding.weight", 4)
    positions = shape(weights, tower + "embeddings.position_embedding", 3)
    return {
        "hidden_size": width,
        "intermediate_size": shape(weights, tower + "encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": layer_count(weights, tower + "encoder.layers."),
        "num_attention_heads": head_count(width, "vision", overrides),
        "image_size": patch * grid_side(positions[1] - 1),
        "patch_size": patch,
        "layer_norm_eps": VISION_EPSILON,
        "hidden_act": "gelu",
    }


def _text_config(weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    """Return the sizes of the text encoder, or of the decoder where there is no encoder.

    Both have the same sizes. Only the width of the cross-attention's input differs: the decoder of a VQA model attends
    to question states, every other text tower to image tokens.
    """
    has_encoder = any(key.startswith("text_encoder.") for key in weights)
    tower = "text_encoder." if has_encoder else "text_decoder.bert."
    vocabulary, width = shape(weights, tower + "embeddings.word_embeddings.weight", 2)
    return {
        "hidden_size": width,
        "intermediate_size": shape(weights, tower + "encoder.layer.0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": layer_count(weights, tower + "encoder.layer."),
        "num_attention_heads": head_count(width, "text", overrides),
        "vocab_size": vocabulary,
        "max_position_embeddings": shape(weights, tower + "embeddings.position_embeddings.weight", 2)[0],
        "encoder_hidden_size": shape(weights, "vision_model.embeddings.patch_embedding.weight", 4)[0],
        "layer_norm_eps": TEXT_EPSILON,
        "hidden_act": "gelu",
        "bos_token_id": vocabulary - 2,
    }


def _temperature(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the temperature of the contrastive loss as transformers stores it, if its value was read."""
    temperature = weights.get("temp")
    if temperature is None or temperature.is_meta or temperature.numel() != 1:
        return {}
    lowest, highest = TEMPERATURES
    return {"logit_scale_init_value": -math.log(min(max(float(temperature), lowest), highest))}


def _merge_from(keys: Iterable[str], layers: int) -> int:
    """Return the first text layer with a merge layer, or the number of layers if none has one."""
    merging = [int(match[1]) for key in keys if (match := re.search(r"layer\.(\d+)\.\S+\.merge_layer\.", key))]
    return min(merging, default=layers)


def _pruned_refusal(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str | None:
    vision, text = config["vision_config"], config["text_config"]
    rows = {
        ".self_attn.qkv.weight": 3 * vision["hidden_size"],
        ".mlp.fc1.weight": vision["intermediate_size"],
        ".attention.self.query.weight": text["hidden_size"],
        ".crossattention.self.query.weight": text["hidden_size"],
        ".intermediate.dense.weight": text["intermediate_size"],
    }
    return pruned_weights_refusal(weights, rows)
