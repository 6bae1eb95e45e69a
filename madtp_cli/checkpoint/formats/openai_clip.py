"""OpenAI's CLIP: a TorchScript archive or a plain state dict with the original key names.

UPop's and OpenCLIP's files have the same names. Only the vision transformers have tokens to prune.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, grid_side
from madtp_cli.checkpoint.tower_shapes import (
    OF_TRAINING,
    depth,
    heads,
    incomplete,
    odd_heads,
    pruned,
    resized,
    said_of_heads,
    said_of_training,
    split_off,
    trained_on,
)

NAME = "OpenAI CLIP"

#: OpenAI's own; a file does not say, and models trained with OpenCLIP may have gelu.
ACTIVATION = "quick_gelu"

#: Original beginning of each key and transformers' ("pre_layrnorm" is its spelling).
TOWERS = (
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
)
#: The same within a block.
BLOCKS = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)
#: Original projections, which transformers has transposed.
TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}

#: In this order in one matrix of the original.
PROJECTIONS = ("q_proj", "k_proj", "v_proj")

DROPPED = OF_TRAINING | {
    "sizes that the shapes show": re.compile(r"^(input_resolution|context_length|vocab_size)$"),
    "causal mask": re.compile(r"(^|\.)attn_mask$"),
}


def to_transformers(key: str, value: Tensor) -> dict[str, Tensor]:
    """An original tensor under our names: the fused attention matrix in three, projections transposed.

    >>> list(to_transformers("transformer.resblocks.0.attn.in_proj_bias", torch.zeros(6)))[0]
    'text_model.encoder.layers.0.self_attn.q_proj.bias'
    """
    if key in TRANSPOSED:
        return {TRANSPOSED[key]: value.t().contiguous()}
    for original, ours in TOWERS:
        if key.startswith(original):
            key = ours + key.removeprefix(original)
            break
    for original, ours in BLOCKS:
        key = key.replace(original, ours)
    if ".attn.in_proj_" in key:
        thirds = zip(PROJECTIONS, value.chunk(3), strict=True)
        return {key.replace(".attn.in_proj_", f".self_attn.{name}."): third for name, third in thirds}
    return {key: value}


def to_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under their original names, as OpenAI's own loader reads them."""
    original: dict[str, Tensor] = {}
    for key, value in weights.items():
        if any(f".{name}." in key for name in PROJECTIONS[1:]):
            continue
        if key in TRANSPOSED.values():
            value = value.t().contiguous()
        elif ".q_proj." in key:
            value = torch.cat([weights[key.replace("q_proj", name)] for name in PROJECTIONS])
        original[_original_key(key)] = value
    return original


def _original_key(key: str) -> str:
    for theirs, ours in TRANSPOSED.items():
        if key == ours:
            return theirs
    key = key.replace(".self_attn.q_proj.", ".attn.in_proj_")
    for theirs, ours in (*TOWERS, *BLOCKS):
        key = key.replace(ours, theirs)
    return key


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """A state dict with CLIP's original names; MADTP's files, which have more, are not ours."""
    looks = any(key.startswith(("visual.conv1.", "visual.layer1.")) for key in source.weights)
    reads = "token_embedding.weight" in source.weights and "ln_final.weight" in source.weights
    if "space_dict" in source.weights or source.config is not None or not (looks or reads):
        return None
    name = f"{NAME} (TorchScript archive)" if source.container == "torchscript" else NAME
    if refusal := _unusable(source.weights, looks, reads):
        return Recognised(name, "retrieval", refusal=refusal)
    kept, dropped = split_off(source.weights, DROPPED)
    try:
        config = {"model_type": "madtp_clip", "task": "retrieval", **_config(kept, overrides)}
    except KeyError as error:
        raise incomplete(source, "CLIP", error) from error
    config["trained_on"] = trained_on(source)
    weights = {ours: part for key, value in kept.items() for ours, part in to_transformers(key, value).items()}
    activation = f"{overrides.activation} (told)" if overrides.activation else "quick GELU (as OpenAI's)"
    notes = (
        f"{said_of_heads(overrides, 'published CLIP')}, {activation} and layer-norm epsilon 1e-5 are assumed: "
        "the file does not say.",
        *said_of_training(source),
    )
    refusal = _pruned(kept, config) or odd_heads(config, overrides)
    return resized(
        Recognised(name, "retrieval", config, weights, dropped, notes=notes, refusal=refusal), overrides.image_size
    )


def _unusable(weights: Mapping[str, Tensor], looks: bool, reads: bool) -> str | None:
    if any(key.startswith(("visual.layer1.", "visual.attnpool.")) for key in weights):
        return "a ResNet CLIP; it has no tokens to prune. Use a ViT model."
    if not looks:
        return "the text tower of a CLIP alone.\nGive the whole checkpoint."
    return None if reads else "the image tower of a CLIP without its text tower.\nGive the whole checkpoint."


def _config(weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    """What the shapes say, by the original keys; the rest has the values of the published models."""
    joint = weights["visual.proj"].shape[1]
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    vocabulary, text_width = weights["token_embedding.weight"].shape
    vision = {
        **_tower(weights, "visual.transformer.resblocks.", width, overrides),
        "projection_dim": joint,
        "image_size": patch * grid_side(weights["visual.positional_embedding"].shape[0] - 1),
        "patch_size": patch,
    }
    text = {
        **_tower(weights, "transformer.resblocks.", text_width, overrides),
        "projection_dim": joint,
        "vocab_size": vocabulary,
        "max_position_embeddings": weights["positional_embedding"].shape[0],
        # The vocabulary ends with the texts' start and end; the original fills up with zeros.
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }
    return {"projection_dim": joint, "vision_config": vision, "text_config": text}


def _tower(weights: Mapping[str, Tensor], blocks: str, width: int, overrides: CheckpointOverrides) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": weights[f"{blocks}0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": depth(weights, blocks),
        "num_attention_heads": heads(width, overrides),
        "layer_norm_eps": 1e-5,
        "hidden_act": overrides.activation or ACTIVATION,
    }


def _pruned(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str | None:
    for start, tower in (("visual.", config["vision_config"]), ("transformer.", config["text_config"])):
        rows = {
            ".attn.in_proj_weight": 3 * tower["hidden_size"],
            ".mlp.c_fc.weight": tower["intermediate_size"],
        }
        if refusal := pruned({key: value for key, value in weights.items() if key.startswith(start)}, rows):
            return refusal
    return None
