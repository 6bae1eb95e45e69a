"""CLIP checkpoints of OpenAI: a TorchScript archive, or a plain state dict with the original names.

Files of UPop and OpenCLIP have the same names. Only the models with a vision transformer have tokens to prune.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

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
    split_dropped,
    training_data_set,
    training_notes,
)

NAME = "OpenAI CLIP"

#: Activation of OpenAI's models. The file does not state it, and models trained with OpenCLIP may have "gelu".
ACTIVATION = "quick_gelu"
#: Layer-norm epsilon of every published CLIP.
EPSILON = 1e-5

#: How the original keys begin, and the keys of transformers ("pre_layrnorm" is its spelling).
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
#: The same for the keys within a block.
BLOCKS = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
)
#: Original projections that transformers stores transposed.
TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}

#: The original stores these three matrices as one, in this order.
PROJECTIONS = ("q_proj", "k_proj", "v_proj")

DROPPED = TRAINING_ONLY | {
    "sizes that the shapes show": re.compile(r"^(input_resolution|context_length|vocab_size)$"),
    "causal mask": re.compile(r"(^|\.)attn_mask$"),
}


def to_transformers(key: str, value: Tensor) -> dict[str, Tensor]:
    """Convert an original tensor to the names of transformers.

    The attention matrix becomes three tensors, and projections are transposed.

    >>> import torch
    >>> list(to_transformers("transformer.resblocks.0.attn.in_proj_bias", torch.zeros(6)))[0]
    'text_model.encoder.layers.0.self_attn.q_proj.bias'
    """
    if key in TRANSPOSED:
        return {TRANSPOSED[key]: value.t().contiguous()}
    for original, renamed in TOWERS:
        if key.startswith(original):
            key = renamed + key.removeprefix(original)
            break
    for original, renamed in BLOCKS:
        key = key.replace(original, renamed)
    if ".attn.in_proj_" in key:
        thirds = zip(PROJECTIONS, value.chunk(3), strict=True)
        return {key.replace(".attn.in_proj_", f".self_attn.{name}."): third for name, third in thirds}
    return {key: value}


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a state dict with the original names. MADTP's result files have another format."""
    has_images = any(key.startswith(("visual.conv1.", "visual.layer1.")) for key in source.weights)
    has_texts = "token_embedding.weight" in source.weights and "ln_final.weight" in source.weights
    if "space_dict" in source.weights or source.config is not None or not (has_images or has_texts):
        return None
    name = f"{NAME} (TorchScript archive)" if source.container == "torchscript" else NAME
    if refusal := _part_refusal(source.weights, has_images, has_texts):
        return Recognised(name, "retrieval", refusal=refusal)
    kept, dropped = split_dropped(source.weights, DROPPED)
    try:
        config = {"model_type": "madtp_clip", "task": "retrieval", **_config(kept, overrides)}
    except KeyError as error:
        raise missing_tensor_error(source, "CLIP", error) from error
    config["trained_on"] = training_data_set(source)
    weights = {renamed: part for key, value in kept.items() for renamed, part in to_transformers(key, value).items()}
    notes = (_assumptions(overrides), *training_notes(source))
    refusal = _pruned_refusal(kept, config) or head_width_refusal(config, overrides)
    recognised = Recognised(name, "retrieval", config, weights, dropped, notes=notes, refusal=refusal)
    return with_image_size(recognised, overrides.image_size)


def _part_refusal(weights: Mapping[str, Tensor], has_images: bool, has_texts: bool) -> str | None:
    if any(key.startswith(("visual.layer1.", "visual.attnpool.")) for key in weights):
        return "a ResNet CLIP, which has no tokens to prune.\nGive a ViT model."
    if not has_images:
        return "the text tower of a CLIP alone.\nGive the whole checkpoint."
    return None if has_texts else "the image tower of a CLIP without its text tower.\nGive the whole checkpoint."


def _assumptions(overrides: CheckpointOverrides) -> str:
    activation = f"{overrides.activation} (as given)" if overrides.activation else "quick GELU (as in OpenAI's models)"
    return (
        f"The file does not state everything. Used are: {head_width_note(overrides, 'published CLIP')}, "
        f"activation {activation}, layer-norm epsilon {EPSILON:g}."
    )


def _config(weights: Mapping[str, Tensor], overrides: CheckpointOverrides) -> dict[str, Any]:
    """Return the configuration from the shapes of the original tensors, and from the published models."""
    joint_width = weights["visual.proj"].shape[1]
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    vocabulary, text_width = weights["token_embedding.weight"].shape
    vision = {
        **_tower(weights, "visual.transformer.resblocks.", width, overrides),
        "projection_dim": joint_width,
        "image_size": patch * grid_side(weights["visual.positional_embedding"].shape[0] - 1),
        "patch_size": patch,
    }
    text = {
        **_tower(weights, "transformer.resblocks.", text_width, overrides),
        "projection_dim": joint_width,
        "vocab_size": vocabulary,
        "max_position_embeddings": weights["positional_embedding"].shape[0],
        # The last two tokens of the vocabulary start and end a text; the original pads with zeros.
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": 0,
    }
    return {"projection_dim": joint_width, "vision_config": vision, "text_config": text}


def _tower(weights: Mapping[str, Tensor], blocks: str, width: int, overrides: CheckpointOverrides) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": weights[f"{blocks}0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": layer_count(weights, blocks),
        "num_attention_heads": head_count(width, overrides),
        "layer_norm_eps": EPSILON,
        "hidden_act": overrides.activation or ACTIVATION,
    }


def _pruned_refusal(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str | None:
    for start, tower in (("visual.", config["vision_config"]), ("transformer.", config["text_config"])):
        rows = {
            ".attn.in_proj_weight": 3 * tower["hidden_size"],
            ".mlp.c_fc.weight": tower["intermediate_size"],
        }
        of_tower = {key: value for key, value in weights.items() if key.startswith(start)}
        if refusal := pruned_weights_refusal(of_tower, rows):
            return refusal
    return None
