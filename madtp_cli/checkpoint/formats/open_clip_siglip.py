"""SigLIP and SigLIP 2 of OpenCLIP: an image tower of timm under `visual.trunk.`, a text tower under `text.`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from madtp_cli.checkpoint import siglip_trunks
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.formats._open_clip import CONFIG, activation, disagreements, special_tokens, text_sizes
from madtp_cli.checkpoint.formats._original_clip import DROPPED, to_transformers
from madtp_cli.checkpoint.open_clip_settings import SiglipSettings, model_settings, refusal, timm_name
from madtp_cli.checkpoint.position_embeddings import grid_side, with_image_size
from madtp_cli.checkpoint.siglip_trunks import EPSILON, Trunk
from madtp_cli.checkpoint.tower_shapes import (
    divided_refusal,
    layer_count,
    missing_tensor_error,
    shape,
    split_dropped,
    training_notes,
)

NAME = "OpenCLIP (SigLIP)"
TRUNK, BLOCKS, TEXT_BLOCKS = "visual.trunk.", "visual.trunk.blocks.", "transformer.resblocks."
WITHOUT_CONFIG = (
    "a SigLIP of OpenCLIP (its image tower is under 'visual.trunk.') without its open_clip_config.json.\n"
    "The number of heads and the activation stand only there: put it into the folder of the file."
)

#: Patterns of timm's keys after `visual.trunk.`, and the keys of transformers after `vision_model.`.
RENAMED = (
    (r"patch_embed\.proj\.(.*)", r"embeddings.patch_embedding.\1"),
    (r"norm\.(.*)", r"post_layernorm.\1"),
    (r"blocks\.(\d+)\.norm([12])\.(.*)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.proj\.(.*)", r"encoder.layers.\1.self_attn.out_proj.\2"),
    (r"blocks\.(\d+)\.mlp\.(.*)", r"encoder.layers.\1.mlp.\2"),
    (r"attn_pool\.latent", r"head.probe"),
    (r"attn_pool\.proj\.(.*)", r"head.attention.out_proj.\1"),
    (r"attn_pool\.norm\.(.*)", r"head.layernorm.\1"),
    (r"attn_pool\.mlp\.(.*)", r"head.mlp.\1"),
)
FUSED = re.compile(r"visual\.trunk\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
POOLING_KEYS = re.compile(r"visual\.trunk\.attn_pool\.kv\.(weight|bias)")


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder or file with an open_clip_config.json that names an image tower of SigLIP."""
    if source.config is not None or source.container == "torchscript":
        return None
    if source.open_clip is None:
        has_pooling = f"{TRUNK}attn_pool.latent" in source.weights
        return Recognised(NAME, "retrieval", refusal=WITHOUT_CONFIG) if has_pooling else None
    trunk = siglip_trunks.find(timm_name(source.open_clip))
    if trunk is None or refusal(source.open_clip):
        return None
    where = (source.path if source.path.is_dir() else source.path.parent) / CONFIG
    settings = model_settings(source.open_clip, where, SiglipSettings)
    weights = {key.removeprefix("text."): value for key, value in source.weights.items()}
    kept, dropped = split_dropped(weights, DROPPED)
    try:
        config = _config(kept, settings, trunk, overrides)
        renamed = dict(_renamed(kept))
    except KeyError as error:
        raise missing_tensor_error(source, "SigLIP", error) from error
    reason = disagreements(_different_sizes(settings, config, trunk)) or divided_refusal(config, overrides)
    notes = (_note(config), *training_notes(source))
    recognised = Recognised(NAME, "retrieval", config, renamed, dropped, notes=notes, refusal=reason)
    return with_image_size(recognised, overrides.image_size, antialias=True)


def _config(
    weights: Mapping[str, Tensor], settings: SiglipSettings, trunk: Trunk, overrides: CheckpointOverrides
) -> dict[str, Any]:
    """Return the configuration, from the shapes and from what only the config states."""
    width, _, patch, _ = shape(weights, f"{TRUNK}patch_embed.proj.weight", 4)
    side = grid_side(shape(weights, f"{TRUNK}pos_embed", 3)[1])
    vocabulary, text_width = shape(weights, "token_embedding.weight", 2)
    text, given = settings.text_cfg, overrides.activation
    vision = {
        **_tower("vision", width, trunk.heads, overrides),
        "intermediate_size": shape(weights, f"{BLOCKS}0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": layer_count(weights, BLOCKS),
        "layer_norm_eps": EPSILON,
        "hidden_act": given or trunk.activation,
        # 384 pixels have 27 patches of 14 pixels on each side, and 6 pixels that no patch covers.
        "image_size": trunk.image_size if trunk.image_size // patch == side else patch * side,
        "patch_size": patch,
    }
    words = {
        **_tower("text", text_width, text.heads, overrides),
        "intermediate_size": shape(weights, f"{TEXT_BLOCKS}0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": layer_count(weights, TEXT_BLOCKS),
        "layer_norm_eps": text.norm_kwargs.eps if text.norm_kwargs else 1e-5,
        "hidden_act": given or activation(settings, text.act_kwargs),
        "vocab_size": vocabulary,
        "max_position_embeddings": shape(weights, "positional_embedding", 2)[0],
        "projection_size": settings.embed_dim,
        **special_tokens(text),
    }
    return {"model_type": "madtp_siglip", "task": "retrieval", "vision_config": vision, "text_config": words}


def _tower(name: str, width: int, heads: int, overrides: CheckpointOverrides) -> dict[str, int]:
    """Return the width of a tower and its heads, which the user may state otherwise."""
    given = overrides.head_width_of(name)
    return {"hidden_size": width, "num_attention_heads": max(width // given, 1) if given else heads}


def _renamed(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors with the names of transformers."""
    for key, value in weights.items():
        if match := FUSED.fullmatch(key):
            for name, part in zip("qkv", value.chunk(3), strict=True):
                yield f"vision_model.encoder.layers.{match[1]}.self_attn.{name}_proj.{match[2]}", part
        elif match := POOLING_KEYS.fullmatch(key):
            query = weights[key.replace(".kv.", ".q.")]
            yield f"vision_model.head.attention.in_proj_{match[1]}", torch.cat([query, value])
        elif key == f"{TRUNK}pos_embed":
            yield "vision_model.embeddings.position_embedding.weight", value[0]
        elif key in ("logit_scale", "logit_bias") and value.numel() == 1:
            yield key, value.reshape(1)
        elif key in ("text_projection.weight", "text_projection.bias"):
            yield key.replace("text_projection", "text_model.head"), value
        elif key == "text_projection":  # without a bias
            yield "text_model.head.weight", value.t().contiguous()
            yield "text_model.head.bias", value.new_zeros(value.shape[1])
        elif not key.startswith(TRUNK):
            yield from to_transformers(key, value).items()
        elif not key.startswith(f"{TRUNK}attn_pool.q."):
            yield _trunk_key(key), value


def _trunk_key(key: str) -> str:
    """Return transformers' name of a tensor of the image tower; an unknown name stays."""
    end = key.removeprefix(TRUNK)
    renamed = (match.expand(name) for pattern, name in RENAMED if (match := re.fullmatch(pattern, end)))
    return next((f"vision_model.{name}" for name in renamed), key)


def _different_sizes(settings: SiglipSettings, config: Mapping[str, Any], trunk: Trunk) -> Iterator[str]:
    width = config["vision_config"]["hidden_size"]
    yield from _different_trunk(config["vision_config"], trunk)
    if settings.embed_dim != width:
        yield f"embed_dim is {settings.embed_dim}, the weights have {width}"
    for name, value, expected in text_sizes(settings.text_cfg, config):
        if value != expected:
            yield f"{name} is {value}, the weights have {expected}"
    for name in ("vision", "text"):
        width, heads = (config[f"{name}_config"][field] for field in ("hidden_size", "num_attention_heads"))
        if width % heads:
            yield f"the {name} tower has {heads} heads, the weights have the width {width}"


def _different_trunk(vision: Mapping[str, Any], trunk: Trunk) -> Iterator[str]:
    """Yield the sizes that the name of the image tower states otherwise than the shapes.

    The number of heads and the activation follow from this name. A width that no published tower has belongs to a
    model that someone made smaller or larger under the same name; its image can then have another size too.
    """
    sides = [size // vision["patch_size"] for size in (trunk.image_size, vision["image_size"])]
    stated = [("patches", trunk.patch_size, vision["patch_size"], " pixels")]
    if vision["hidden_size"] in siglip_trunks.WIDTHS.values():
        stated += [("tokens", trunk.width, vision["hidden_size"], " channels"), ("a grid", *sides, " patches wide")]
    for what, named, found, unit in stated:
        if named != found:
            yield f"timm_model_name states {what} of {named}{unit}, the weights have {found}"


def _note(config: Mapping[str, Any]) -> str:
    """Return the note about what the shapes do not show."""
    facts = [
        f"{tower}: {part['num_attention_heads']} heads, activation {part['hidden_act']}, "
        f"layer-norm epsilon {part['layer_norm_eps']:g}"
        for tower, part in (("vision", config["vision_config"]), ("text", config["text_config"]))
    ]
    return f"Read from {CONFIG} and the name of its image tower, except what was given: {'; '.join(facts)}."
