"""CLIP checkpoints of OpenCLIP: `open_clip_config.json` and the weights, also those with a text tower under `text.`.

The tensors have OpenAI's names. Everything that shapes do not show stands in the config, which is followed or refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.formats._original_clip import (
    DROPPED,
    TowerSettings,
    config_from_shapes,
    has_original_names,
    part_refusal,
    pruned_refusal,
    to_transformers,
)
from madtp_cli.checkpoint.open_clip_settings import Activation, ModelSettings, TextSettings, model_settings, refusal
from madtp_cli.checkpoint.position_embeddings import with_image_size
from madtp_cli.checkpoint.tower_shapes import divided_refusal, missing_tensor_error, split_dropped, training_notes

NAME = "OpenCLIP"
CONFIG = "open_clip_config.json"

#: How the keys of the text tower begin in files of OpenCLIP's class CustomTextCLIP.
TEXT = "text."
WITHOUT_CONFIG = (
    "a CustomTextCLIP of OpenCLIP (its text tower is under 'text.') without its open_clip_config.json.\n"
    "The number of heads and the activation stand only there: put it into the folder of the file."
)
#: Number of disagreements between the config and the weights that a message names.
SHOWN = 3


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder or file with an open_clip_config.json, or with OpenCLIP's keys of a text tower."""
    if source.config is not None or source.container == "torchscript":
        return None
    custom_text = f"{TEXT}token_embedding.weight" in source.weights
    if source.open_clip is None:
        custom = custom_text and any(key.startswith("visual.") for key in source.weights)
        return Recognised(NAME, "retrieval", refusal=WITHOUT_CONFIG) if custom else None
    weights = _with_top_level_text(source.weights)
    if reason := refusal(source.open_clip):
        return Recognised(NAME, "retrieval", refusal=reason)
    if not has_original_names(weights):
        return None
    if reason := part_refusal(weights):
        return Recognised(NAME, "retrieval", refusal=reason)
    where = (source.path if source.path.is_dir() else source.path.parent) / CONFIG
    return _recognised(source, weights, model_settings(source.open_clip, where), overrides)


def _recognised(
    source: Source, weights: Mapping[str, Tensor], settings: ModelSettings, overrides: CheckpointOverrides
) -> Recognised:
    kept, dropped = split_dropped(weights, DROPPED)
    towers = _towers(settings, overrides)
    try:
        config = config_from_shapes(kept, towers, _special_tokens(settings.text_cfg))
    except KeyError as error:
        raise missing_tensor_error(source, "CLIP", error) from error
    config["text_projection_bias"] = "text_projection.bias" in kept
    renamed = {name: part for key, value in kept.items() for name, part in to_transformers(key, value).items()}
    reason = pruned_refusal(kept, config) or _disagreements(settings, config) or _head_refusal(config, overrides)
    notes = (_note(settings, towers, overrides), *training_notes(source))
    recognised = Recognised(NAME, "retrieval", config, renamed, dropped, notes=notes, refusal=reason)
    return with_image_size(recognised, overrides.image_size)


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
            overrides.activation or _activation(settings, part.act_kwargs),
            part.norm_kwargs.eps if part.norm_kwargs else 1e-5,
        )
        for tower, part in (("vision", vision), ("text", text))
    }


def _activation(settings: ModelSettings, arguments: Activation | None) -> str:
    if settings.quick_gelu:
        return "quick_gelu"
    return "gelu_pytorch_tanh" if arguments and arguments.approximate == "tanh" else "gelu"


def _special_tokens(text: TextSettings) -> dict[str, int]:
    """Return the tokens that start, end and pad a text. Without `eos`, a text is read at its largest token number."""
    if text.pool_type == "eos":
        end = 2 if text.eos_id is None else text.eos_id
        return {"bos_token_id": 0, "eos_token_id": end, "pad_token_id": text.pad_id}
    return {
        "bos_token_id": max(text.vocab_size - 2, 0),
        "eos_token_id": text.vocab_size - 1,
        "pad_token_id": text.pad_id,
    }


def _disagreements(settings: ModelSettings, config: Mapping[str, Any]) -> str | None:
    """Return the first sizes that the config states otherwise than the shapes; None if all agree."""
    found = list(_different_sizes(settings, config))
    if not found:
        return None
    return (
        f"an OpenCLIP model whose {CONFIG} and weights disagree: {'; '.join(found[:SHOWN])}.\n"
        "Give the config and the weights of one model."
    )


def _different_sizes(settings: ModelSettings, config: Mapping[str, Any]) -> Iterator[str]:
    vision, text = settings.vision_cfg, settings.text_cfg
    stated: dict[str, dict[str, tuple[str, Any]]] = {
        "vision_config": {
            "hidden_size": ("vision_cfg.width", vision.width),
            "num_hidden_layers": ("vision_cfg.layers", vision.layers),
            "patch_size": ("vision_cfg.patch_size", vision.patch_size),
            "image_size": ("vision_cfg.image_size", vision.image_size),
            "intermediate_size": ("vision_cfg.width times mlp_ratio", int(vision.width * vision.mlp_ratio)),
        },
        "text_config": {
            "hidden_size": ("text_cfg.width", text.width),
            "num_hidden_layers": ("text_cfg.layers", text.layers),
            "vocab_size": ("text_cfg.vocab_size", text.vocab_size),
            "max_position_embeddings": ("text_cfg.context_length", text.context_length),
            "intermediate_size": ("text_cfg.width times mlp_ratio", int(text.width * text.mlp_ratio)),
        },
    }
    if settings.embed_dim != config["projection_dim"]:
        yield f"embed_dim is {settings.embed_dim}, the weights have {config['projection_dim']}"
    for part, fields in stated.items():
        for field, (name, value) in fields.items():
            expected = config[part][field]
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
