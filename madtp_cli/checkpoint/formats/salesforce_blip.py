"""Salesforce BLIP checkpoints: `{"model": ...}` with the original key names.

Everything about the architecture is read off the tensors' shapes; what they do not show
has the values of the published models, or is told.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, grid_side
from madtp_cli.checkpoint.tower_shapes import (
    OF_TRAINING,
    blip_task,
    depth,
    heads,
    incomplete,
    odd_heads,
    pruned,
    resized,
    said_of_heads,
    said_of_training,
    split_off,
    tied,
    trained_on,
)

NAME = "Salesforce BLIP"

#: CLIP's normalisation, used by every BLIP (data/*.py of the original).
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

#: How such keys begin; BLIP-2's and the parts of a BLIP are recognised too, to be refused with a reason.
OURS = ("visual_encoder.", "text_encoder.embeddings.", "text_decoder.bert.", "Qformer.")

#: What `blip_task` calls files whose sizes cannot be told.
WITHOUT_TOWERS = ("blip-2", "text", "images")

#: Tasks with a text decoder, and how its answers are smoothed in training (models/med.py of the original).
DECODES = ("vqa", "caption")
LABEL_SMOOTHING = 0.1

#: The contrastive loss's temperature is held between these (models/blip_retrieval.py of the original).
TEMPERATURES = (0.001, 0.5)

#: First text layer with a merge layer when BLIP makes an NLVR2 model of a pre-trained one.
MERGE_FROM = 6

#: Original name of each vision module and transformers' name; text and heads have one name.
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
DROPPED = OF_TRAINING | {
    "temperature of the contrastive loss": re.compile(r"^temp$"),
    "position numbers": re.compile(r"\.position_ids$"),
    "masked language modelling": re.compile(r"^text_encoder\.(cls|pooler)\."),
}


def to_transformers(key: str) -> str:
    """Our name of an original key.

    >>> to_transformers("visual_encoder.blocks.0.norm1.bias")
    'vision_model.encoder.layers.0.layer_norm1.bias'
    """
    if not key.startswith("visual_encoder."):
        return key
    for original, ours in RENAMED:
        key = key.replace(original, ours)
    return key


def to_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their original names, as Salesforce's own loader reads them."""
    return {_original_key(key): value for key, value in weights.items()}


def _original_key(key: str) -> str:
    if not key.startswith("vision_model."):
        return key
    for original, ours in reversed(RENAMED):
        key = re.sub(re.escape(ours), original, key)
    return key


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """A state dict with BLIP's original names; MADTP's files, which have more, are not ours."""
    if "space_dict" in source.weights or source.config is not None or not _named_so(source.weights):
        return None
    task, refusal = blip_task(source.weights)
    if task in WITHOUT_TOWERS:
        return Recognised(NAME, task, refusal=refusal)
    kept, dropped = split_off(source.weights, DROPPED)
    weights = tied({to_transformers(key): value for key, value in kept.items()})
    try:
        config = {
            "model_type": "madtp_blip",
            "task": task,
            **_config(weights, overrides),
            "trained_on": trained_on(source),
        }
        config |= _temperature(source.weights) if task == "retrieval" else {}
    except KeyError as error:
        raise incomplete(source, "BLIP", error) from error
    refusal = refusal or _pruned(weights, config) or odd_heads(config, overrides)
    notes = (_assumed(overrides, task), *said_of_training(source))
    return resized(Recognised(NAME, task, config, weights, dropped, notes=notes, refusal=refusal), overrides.image_size)


def _named_so(keys: Iterable[str]) -> bool:
    keys = tuple(keys)
    return any(key.startswith(OURS) for key in keys) and not any(key.startswith("vision_model.") for key in keys)


def _assumed(overrides: CheckpointOverrides, task: str) -> str:
    smoothing = f", GELU and label smoothing {LABEL_SMOOTHING}" if task in DECODES else " and GELU"
    return (
        f"{said_of_heads(overrides, 'published BLIP')}, layer-norm epsilons 1e-6 (vision) and 1e-12 (text){smoothing} "
        "are assumed: the file does not say."
    )


def _config(weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    """What the shapes say; the rest has the values of the published models."""
    task, _ = blip_task(weights)
    config: dict[str, Any] = {
        "vision_config": _vision_config(weights, overrides),
        "text_config": _text_config(weights, overrides),
    }
    if task in DECODES:
        config["text_config"]["label_smoothing"] = LABEL_SMOOTHING
    if task == "nlvr2":
        config["merge_from"] = _merge_from(weights, config["text_config"]["num_hidden_layers"])
    if task == "retrieval":
        config["image_text_hidden_size"] = weights["vision_proj.weight"].shape[0]
    return config


def _vision_config(weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    tower = "vision_model."
    width, _, patch, _ = weights[tower + "embeddings.patch_embedding.weight"].shape
    positions = weights[tower + "embeddings.position_embedding"]
    return {
        "hidden_size": width,
        "intermediate_size": weights[tower + "encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": depth(weights, tower + "encoder.layers."),
        "num_attention_heads": heads(width, overrides),
        "image_size": patch * grid_side(positions.shape[1] - 1),
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
    }


def _text_config(weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    """Sizes of the text encoder, and of the decoder, which has the same.

    Only what they look at differs in width: VQA's decoder looks at question states, all others at images.
    """
    encoder = any(key.startswith("text_encoder.") for key in weights)
    tower = "text_encoder." if encoder else "text_decoder.bert."
    vocabulary, width = weights[tower + "embeddings.word_embeddings.weight"].shape
    return {
        "hidden_size": width,
        "intermediate_size": weights[tower + "encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": depth(weights, tower + "encoder.layer."),
        "num_attention_heads": heads(width, overrides),
        "vocab_size": vocabulary,
        "max_position_embeddings": weights[tower + "embeddings.position_embeddings.weight"].shape[0],
        "encoder_hidden_size": weights["vision_model.embeddings.patch_embedding.weight"].shape[0],
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "bos_token_id": vocabulary - 2,
    }


def _temperature(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """The contrastive loss's temperature as transformers keeps it, where the file has it with its value."""
    temperature = weights.get("temp")
    if temperature is None or temperature.is_meta or temperature.numel() != 1:
        return {}
    least, most = TEMPERATURES
    return {"logit_scale_init_value": -math.log(min(max(float(temperature), least), most))}


def _merge_from(weights: Iterable[str], layers: int) -> int:
    merged = [int(match[1]) for key in weights if (match := re.search(r"layer\.(\d+)\.\S+\.merge_layer\.", key))]
    return min(merged, default=layers)


def _pruned(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str | None:
    vision, text = config["vision_config"], config["text_config"]
    rows = {
        ".self_attn.qkv.weight": 3 * vision["hidden_size"],
        ".mlp.fc1.weight": vision["intermediate_size"],
        ".attention.self.query.weight": text["hidden_size"],
        ".crossattention.self.query.weight": text["hidden_size"],
        ".intermediate.dense.weight": text["intermediate_size"],
    }
    return pruned(weights, rows)


def nlvr_from_pretrained(found: Recognised, merge_from: int = MERGE_FROM) -> Recognised:
    """The start of an NLVR2 fine-tune from a pre-trained BLIP.

    Each cross-attention is copied for either image; merge layers and the classification head
    start fresh. Recognise the file with `Told(image_size=...)` to have its positions resized.

    Source: BLIP, arXiv:2201.12086.
    """
    weights: dict[str, Tensor] = {}
    unused: list[str] = []
    for key, value in found.weights.items():
        targets = _nlvr_keys(key)
        weights |= {target: value.clone() for target in targets}
        if not targets:
            unused.append(key)
    return dataclasses.replace(
        found,
        task="nlvr2",
        config={**found.config, "task": "nlvr2", "merge_from": merge_from},
        weights=weights,
        dropped={**found.dropped, "heads and decoder of pre-training": unused},
        fresh=("cls_head.", ".merge_layer."),
        notes=(*found.notes, "Merge layers and classification head start from random values."),
        refusal=None,
    )


def _nlvr_keys(key: str) -> tuple[str, ...]:
    if not key.startswith(("vision_model.", "text_encoder.")):
        return ()
    for part, twins in ((".self.", (".self0.", ".self1.")), (".output.dense.", (".output.dense0.", ".output.dense1."))):
        if f".crossattention{part}" in key:
            return tuple(key.replace(f".crossattention{part}", f".crossattention{twin}") for twin in twins)
    return (key,)
