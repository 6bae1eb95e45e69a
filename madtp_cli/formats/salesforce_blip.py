"""Salesforce BLIP checkpoints: `{"model": ...}` with the original key names.

Everything about the architecture is read off the tensors' shapes; what they do not show
has the values of the published models, or is told.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from madtp_cli.errors import CheckpointError
from madtp_cli.formats import Recognised, Source, Told, grid_side, resize_positions

NAME = "Salesforce BLIP"

#: CLIP's normalisation, used by every BLIP (data/*.py of the original).
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

#: Width of one attention head in every published BLIP.
HEAD_WIDTH = 64

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
POSITIONS = "vision_model.embeddings.position_embedding"

#: Keys that only training needs, or that are no weights.
DROPPED = {
    "momentum copies": re.compile(r"^\w+_m\."),
    "queues of the contrastive loss": re.compile(r"^(\w+_queue|queue_ptr)$"),
    "temperature of the contrastive loss": re.compile(r"^temp$"),
    "position numbers": re.compile(r"\.position_ids$"),
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


def recognise(source: Source, told: Told) -> Recognised | None:
    """A state dict with BLIP's vision tower; MADTP's files, which have more, are not ours."""
    if "space_dict" in source.weights or not any(key.startswith("visual_encoder.") for key in source.weights):
        return None
    weights: dict[str, Tensor] = {}
    dropped: dict[str, list[str]] = {}
    for key, value in source.weights.items():
        reason = next((reason for reason, pattern in DROPPED.items() if pattern.search(key)), None)
        if reason:
            dropped.setdefault(reason, []).append(key)
        else:
            weights[to_transformers(key)] = value
    try:
        return _describe(source, told, weights, dropped)
    except KeyError as error:
        raise CheckpointError(
            f"{source.path} is a BLIP without the tensor {error.args[0]}, so its sizes cannot be told.\n"
            "The file is incomplete; download or copy it again."
        ) from error


def _describe(source: Source, told: Told, weights: dict[str, Tensor], dropped: dict[str, list[str]]) -> Recognised:
    task, refusal = _task(weights)
    head_width = told.head_width or HEAD_WIDTH
    vision, text = _vision_config(weights, head_width), _text_config(weights, head_width)
    notes = [
        f"Heads of width {head_width} ({'told' if told.head_width else 'as in every published BLIP'}), layer-norm "
        "epsilons 1e-6 (vision) and 1e-12 (text) and GELU are not in the file."
    ]
    if told.image_size and told.image_size != vision["image_size"]:
        notes.append(f"Position embeddings resized from {vision['image_size']} to {told.image_size} pixels.")
        weights[POSITIONS] = resize_positions(weights[POSITIONS], told.image_size, vision["patch_size"])
        vision["image_size"] = told.image_size
    if "epoch" in source.extras:
        notes.append(f"Saved after epoch {source.extras['epoch']} of its training (counted from 0).")
    config = {
        "task": task,
        "merge_from": _merge_from(weights, text["num_hidden_layers"]),
        "vision_config": vision,
        "text_config": text,
        "trained_on": _trained_on(source),
    }
    refusal = refusal or _pruned(weights, vision) or _odd_heads(vision, text, head_width)
    return Recognised(NAME, task, config, weights, dropped, notes=tuple(notes), refusal=refusal)


def _trained_on(source: Source) -> str | None:
    """The data set, where a checkpoint's own record names it; the published files' does not."""
    record = source.extras.get("config")
    name = record.get("dataset") if isinstance(record, Mapping) else None
    return name if isinstance(name, str) else None


def _task(weights: Mapping[str, Tensor]) -> tuple[str, str | None]:
    """What the checkpoint does, and why it cannot be used unless that is NLVR2."""
    parts = {key.split(".")[0] for key in weights}
    if "cls_head" in parts or any(".crossattention.self0." in key for key in weights):
        return "nlvr2", None
    if {"itm_head", "text_decoder"} <= parts:
        return "pretraining", (
            "a pre-trained BLIP: it has no NLVR2 head, so there is no answer whose quality could be kept.\n"
            "Fine-tune it on NLVR2 first, or take a fine-tuned checkpoint such as model_base_nlvr.pth."
        )
    if "itm_head" in parts:
        task, name = "retrieval", "retrieval"
    elif "text_decoder" in parts:
        task, name = ("vqa", "VQA") if "text_encoder" in parts else ("caption", "captions")
    else:
        return "features", "a BLIP without a task head.\nGive one fine-tuned on NLVR2, such as model_base_nlvr.pth."
    return task, f"recognised as BLIP for {name}; this version compresses NLVR2 only.\nGive a BLIP fine-tuned on NLVR2."


def _vision_config(weights: Mapping[str, Tensor], head_width: int) -> dict[str, Any]:
    tower = "vision_model."
    width, _, patch, _ = weights[tower + "embeddings.patch_embedding.weight"].shape
    return {
        "hidden_size": width,
        "intermediate_size": weights[tower + "encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _depth(weights, tower + "encoder.layers."),
        "num_attention_heads": 1 if width % head_width else width // head_width,
        "image_size": patch * grid_side(weights[POSITIONS].shape[1] - 1),
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
    }


def _text_config(weights: Mapping[str, Tensor], head_width: int) -> dict[str, Any]:
    """The text encoder's sizes; a caption model has a decoder only."""
    encoder = any(key.startswith("text_encoder.") for key in weights)
    tower = "text_encoder." if encoder else "text_decoder.bert."
    vocabulary, width = weights[tower + "embeddings.word_embeddings.weight"].shape
    looks = [
        value for key, value in weights.items() if re.search(r"layer\.0\.crossattention\.self0?\.key\.weight", key)
    ]
    return {
        "hidden_size": width,
        "intermediate_size": weights[tower + "encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _depth(weights, tower + "encoder.layer."),
        "num_attention_heads": 1 if width % head_width else width // head_width,
        "vocab_size": vocabulary,
        "max_position_embeddings": weights[tower + "embeddings.position_embeddings.weight"].shape[0],
        "encoder_hidden_size": looks[0].shape[1] if looks else width,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "bos_token_id": vocabulary - 2,
    }


def _depth(weights: Iterable[str], prefix: str) -> int:
    numbers = [int(key.removeprefix(prefix).split(".")[0]) for key in weights if key.startswith(prefix)]
    return max(numbers) + 1


def _merge_from(weights: Iterable[str], depth: int) -> int:
    merged = [int(match[1]) for key in weights if (match := re.search(r"layer\.(\d+)\.\S+\.merge_layer\.", key))]
    return min(merged, default=depth)


def _pruned(weights: Mapping[str, Tensor], vision: Mapping[str, Any]) -> str | None:
    width = vision["hidden_size"]
    uneven = [key for key, value in weights.items() if key.endswith(".qkv.weight") and value.shape[0] != 3 * width]
    if not uneven:
        return None
    return (
        f"a BLIP whose weights were pruned, as UPop does ({uneven[0]} has {weights[uneven[0]].shape[0]} rows, "
        f"not {3 * width}).\nGive the dense model."
    )


def _odd_heads(vision: Mapping[str, Any], text: Mapping[str, Any], head_width: int) -> str | None:
    for tower, config in (("vision", vision), ("text", text)):
        if config["hidden_size"] % head_width:
            return (
                f"its {tower} width {config['hidden_size']} is no multiple of {head_width}, the usual width of one "
                "attention head.\nThe number of heads is not in the file: say it with --head-width."
            )
    return None


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
