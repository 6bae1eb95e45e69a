"""CLIP checkpoints of OpenCLIP: `open_clip_config.json` and the weights, also those with a text tower under `text.`.

The tensors have OpenAI's names. Everything that shapes do not show stands in the config, which is followed or refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.formats._open_clip import CONFIG, activation, disagreements, special_tokens, text_sizes
from madtp_cli.checkpoint.formats._original_clip import (
    DROPPED,
    TowerSettings,
    config_from_shapes,
    has_original_names,
    part_refusal,
    pruned_refusal,
    to_transformers,
)
from madtp_cli.checkpoint.open_clip_settings import COCA, ModelSettings, model_settings, refusal, timm_name
from madtp_cli.checkpoint.position_embeddings import with_image_size
from madtp_cli.checkpoint.tower_shapes import divided_refusal, missing_tensor_error, split_dropped, training_notes

NAME = "OpenCLIP"

#: How the keys of the text tower begin in files of OpenCLIP's class CustomTextCLIP.
TEXT = "text."
WITHOUT_CONFIG = (
    "a CustomTextCLIP of OpenCLIP (its text tower is under 'text.') without its open_clip_config.json.\n"
    "The number of heads and the activation stand only there: put it into the folder of the file."
)


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder or file with an open_clip_config.json, or with OpenCLIP's keys of a text tower."""
    if source.config is not None or source.container == "torchscript":
        return None
    custom_text = f"{TEXT}token_embedding.weight" in source.weights
    if source.open_clip is None:
        if any(key.startswith("text_decoder.resblocks.") for key in source.weights):
            return Recognised(NAME, "retrieval", refusal=COCA)
        starts = {key.split(".")[1] for key in source.weights if key.startswith("visual.")}
        custom = custom_text and starts and "trunk" not in starts
        return Recognised(NAME, "retrieval", refusal=WITHOUT_CONFIG) if custom else None
    weights = _with_top_level_text(source.weights)
    if reason := refusal(source.open_clip):
        return Recognised(NAME, "retrieval", refusal=reason)
    if timm_name(source.open_clip) or not has_original_names(weights):
        return None  # an image tower of timm that was not refused is that of a SigLIP
    if reason := part_refusal(weights):
        return Recognised(NAME, "retrieval", refusal=reason)
    where = (source.path if source.path.is_dir() else source.path.parent) / CONFIG
    return _recognised(source, weights, model_settings(source.open_clip, where, ModelSettings), overrides)


def _recognised(
    source: Source, weights: Mapping[str, Tensor], settings: ModelSettings, overrides: CheckpointOverrides
) -> Recognised:
    kept, dropped = split_dropped(weights, DROPPED)
    towers = _towers(settings, overrides)
    try:
        config = config_from_shapes(kept, towers, special_tokens(settings.text_cfg))
    except KeyError as error:
        raise missing_tensor_error(source, "CLIP", error) from error
    config["text_projection_bias"] = "text_projection.bias" in kept
    renamed = {name: part for key, value in kept.items() for name, part in to_transformers(key, value).items()}
    reason = (
        pruned_refusal(kept, config)
        or disagreements(_different_sizes(settings, config))
        or _head_refusal(config, overrides)
    )
    notes = (_note(settings, towers, overrides), *training_notes(source))
    recognised = Recognised(NAME, "retrieval", config, renamed, dropped, notes=notes, refusal=reason)
    return with_image_size(recognised, overrides.image_size, antialias=True)


def _with_top_level_text(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the text tower at the top level and its projection as a matrix [width, joint width]."""
    named = {key.removeprefix(TEXT): value for key, value in weights.items()}
    linear = named.pop("text_projection.weight", None)
    if linear is not None and linear.dim() == 2:
        named["text_projection"] = linear.t()
    if "logit_scale" in named and named["logit_scale"].numel() == 1:
        named["logit_scale"] = named["logit_scale"].reshape(())
    return named


def _towers(settings: ModelSettings, overrides: CheckpointOverrides) -> dict[str, TowerSettings]:
    vision, text = settings.vision_cfg, settings.text_cfg

    def heads(width: int, tower: str) -> int:
        if given := overrides.head_width_of(tower):
            return max(width // given, 1)
        return max(width // vision.head_width, 1) if tower == "vision" else text.heads

    return {
        tower: TowerSettings(
            partial(heads, tower=tower),
            overrides.activation or activation(settings, part.act_kwargs),
            part.norm_kwargs.eps if part.norm_kwargs else 1e-5,
        )
        for tower, part in (("vision", vision), ("text", text))
    }


def _different_sizes(settings: ModelSettings, config: Mapping[str, Any]) -> Iterator[str]:
    vision = settings.vision_cfg
    stated = {
        "hidden_size": ("vision_cfg.width", vision.width),
        "num_hidden_layers": ("vision_cfg.layers", vision.layers),
        "patch_size": ("vision_cfg.patch_size", vision.patch_size),
        "image_size": ("vision_cfg.image_size", vision.image_size),
        "intermediate_size": ("vision_cfg.width times mlp_ratio", int(vision.width * vision.mlp_ratio)),
    }
    if settings.embed_dim != config["projection_dim"]:
        yield f"embed_dim is {settings.embed_dim}, the weights have {config['projection_dim']}"
    of_vision = ((name, value, config["vision_config"][field]) for field, (name, value) in stated.items())
    for name, value, expected in (*of_vision, *text_sizes(settings.text_cfg, config)):
        if value not in (expected, (expected, expected)):
            yield f"{name} is {value}, the weights have {expected}"


def _head_refusal(config: Mapping[str, Any], overrides: CheckpointOverrides) -> str | None:
    if given := divided_refusal(config, overrides):
        return given
    for tower in ("vision", "text"):
        width, heads = (config[f"{tower}_config"][name] for name in ("hidden_size", "num_attention_heads"))
        if width % heads:
            return (
                f"a CLIP whose {tower} width {width} does not divide into {heads} attention heads.\n"
                f"Correct {CONFIG}, or give the width of a head with --head-width {tower}=N."
            )
    return None


def _note(settings: ModelSettings, towers: Mapping[str, TowerSettings], overrides: CheckpointOverrides) -> str:
    """Return the note about what comes from the config and what the user gave."""
    widths = {"vision": settings.vision_cfg.width, "text": settings.text_cfg.width}
    facts = [
        f"{tower}: {part.heads(widths[tower])} heads, activation {part.activation}, layer-norm epsilon {part.epsilon:g}"
        for tower, part in towers.items()
    ]
    given = [name for name in ("head_width", "activation") if getattr(overrides, name)]
    exception = f", except what was given with --{' and --'.join(given).replace('_', '-')}" if given else ""
    return f"Read from {CONFIG}{exception}: {'; '.join(facts)}."
