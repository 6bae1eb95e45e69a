"""The original names of CLIP's tensors, which OpenAI, UPop, MADTP and OpenCLIP use, and the sizes that shapes show."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from madtp_cli.checkpoint.position_embeddings import grid_side
from madtp_cli.checkpoint.tower_shapes import TRAINING_ONLY, layer_count, pruned_weights_refusal, shape

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


CLIPA = (
    "a CLIPA, or another model of OpenCLIP without the norm before the blocks (visual.ln_pre); such models also pool "
    "otherwise than CLIP.\nGive a CLIP with OpenAI's architecture, such as ViT-L-14 of OpenAI, LAION or DataComp."
)


@dataclass(frozen=True)
class TowerSettings:
    """What the shapes of a tower's tensors do not show.

    Attributes:
        heads: Returns the number of attention heads for the width of the tower.
        activation: Name of the activation function, as transformers has it.
        epsilon: Layer-norm epsilon.
    """

    heads: Callable[[int], int]
    activation: str
    epsilon: float = EPSILON


def has_original_names(weights: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of a CLIP, or of one of its towers, with the original names."""
    has_images = any(key.startswith(("visual.conv1.", "visual.layer1.")) for key in weights)
    return has_images or ("token_embedding.weight" in weights and "ln_final.weight" in weights)


def part_refusal(weights: Mapping[str, Tensor]) -> str | None:
    """Return why a CLIP has no towers that can be pruned; None if it has both."""
    if any(key.startswith(("visual.layer1.", "visual.attnpool.")) for key in weights):
        return "a ResNet CLIP, which has no tokens to prune.\nGive a ViT model."
    if any(key.startswith("visual.trunk.") for key in weights):
        return "a CLIP whose image tower is one of timm, without its open_clip_config.json.\nPut it next to the file."
    if not any(key.startswith("visual.conv1.") for key in weights):
        return "the text tower of a CLIP alone.\nGive the whole checkpoint."
    if "token_embedding.weight" not in weights or "ln_final.weight" not in weights:
        return "the image tower of a CLIP without its text tower.\nGive the whole checkpoint."
    if not any(key.startswith("visual.ln_pre.") for key in weights):
        return CLIPA
    return None


def config_from_shapes(
    weights: Mapping[str, Tensor], towers: Mapping[str, TowerSettings], special: Mapping[str, int]
) -> dict[str, Any]:
    """Return the configuration of a CLIP from the shapes of the original tensors.

    Args:
        weights: The original tensors by key.
        towers: What the shapes do not show, for "vision" and "text".
        special: The numbers of the tokens that start, end and pad a text.

    Raises:
        KeyError: A tensor that shows a size is absent.
        CheckpointError: Such a tensor has an impossible shape.
    """
    _, joint_width = shape(weights, "visual.proj", 2)
    width, _, patch, _ = shape(weights, "visual.conv1.weight", 4)
    vocabulary, text_width = shape(weights, "token_embedding.weight", 2)
    vision = {
        **_tower(weights, "visual.transformer.resblocks.", width, towers["vision"]),
        "projection_dim": joint_width,
        "image_size": patch * grid_side(shape(weights, "visual.positional_embedding", 2)[0] - 1),
        "patch_size": patch,
    }
    text = {
        **_tower(weights, "transformer.resblocks.", text_width, towers["text"]),
        "projection_dim": joint_width,
        "vocab_size": vocabulary,
        "max_position_embeddings": shape(weights, "positional_embedding", 2)[0],
        **special,
    }
    return {
        "model_type": "madtp_clip",
        "task": "retrieval",
        "projection_dim": joint_width,
        "vision_config": vision,
        "text_config": text,
    }


def _tower(weights: Mapping[str, Tensor], blocks: str, width: int, settings: TowerSettings) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": shape(weights, f"{blocks}0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": layer_count(weights, blocks),
        "num_attention_heads": settings.heads(width),
        "layer_norm_eps": settings.epsilon,
        "hidden_act": settings.activation,
    }


def pruned_refusal(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> str | None:
    """Return why a CLIP with smaller matrices cannot be used; None if its matrices have full size."""
    for start, tower in (("visual.", config["vision_config"]), ("transformer.", config["text_config"])):
        rows = {
            ".attn.in_proj_weight": 3 * tower["hidden_size"],
            ".mlp.c_fc.weight": tower["intermediate_size"],
        }
        of_tower = {key: value for key, value in weights.items() if key.startswith(start)}
        if refusal := pruned_weights_refusal(of_tower, rows):
            return refusal
    return None
