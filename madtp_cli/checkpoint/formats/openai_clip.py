"""CLIP checkpoints of OpenAI: a TorchScript archive, or a plain state dict with the original names.

Files of UPop, MADTP and OpenCLIP have the same names. Only the models with a vision transformer have tokens to prune.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.formats._original_clip import (
    DROPPED,
    EPSILON,
    TowerSettings,
    config_from_shapes,
    has_original_names,
    part_refusal,
    pruned_refusal,
    to_transformers,
)
from madtp_cli.checkpoint.position_embeddings import with_image_size
from madtp_cli.checkpoint.tower_shapes import (
    TRAINING_ONLY,
    head_count,
    head_width_note,
    head_width_refusal,
    missing_tensor_error,
    shape,
    split_dropped,
    training_data_set,
    training_notes,
)

NAME = "OpenAI CLIP"

#: Activation of OpenAI's models, and of everything trained from them with their code.
ACTIVATION = "quick_gelu"
#: The data set of the checkpoints in `examples/`, which are trained with OpenAI's activation.
SCENES = "madtp scenes"

UNKNOWN_ACTIVATION = (
    "a CLIP whose file does not state the activation function, and no weight shows it.\n"
    "Give --activation quick_gelu for models of OpenAI, MetaCLIP and DFN-2B, or --activation gelu for models that "
    "OpenCLIP trained (LAION, DataComp); or put its open_clip_config.json next to it."
)


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a state dict with the original names. MADTP's result files have another format."""
    other = "space_dict" in source.weights or source.config is not None or source.open_clip is not None
    if other or not has_original_names(source.weights):
        return None
    name = f"{NAME} (TorchScript archive)" if source.container == "torchscript" else NAME
    if refusal := part_refusal(source.weights):
        return Recognised(name, "retrieval", refusal=refusal)
    kept, dropped = split_dropped(source.weights, DROPPED)
    activation_source = "as given" if overrides.activation else _activation_source(source)
    towers = {
        tower: TowerSettings(partial(head_count, tower=tower, overrides=overrides), _activation(overrides))
        for tower in ("vision", "text")
    }
    try:
        vocabulary, _ = shape(kept, "token_embedding.weight", 2)
        # The last two tokens of the vocabulary start and end a text; the original pads with zeros.
        special = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": 0}
        config = config_from_shapes(kept, towers, special)
    except KeyError as error:
        raise missing_tensor_error(source, "CLIP", error) from error
    config["trained_on"] = training_data_set(source)
    weights = {renamed: part for key, value in kept.items() for renamed, part in to_transformers(key, value).items()}
    notes = (_assumptions(overrides, activation_source), *training_notes(source))
    refusal = pruned_refusal(kept, config) or head_width_refusal(config, overrides)
    refusal = refusal or (None if activation_source else UNKNOWN_ACTIVATION)
    recognised = Recognised(name, "retrieval", config, weights, dropped, notes=notes, refusal=refusal)
    return with_image_size(recognised, overrides.image_size)


def _activation(overrides: CheckpointOverrides) -> str:
    return overrides.activation or ACTIVATION


def _activation_source(source: Source) -> str | None:
    """Return what shows that a file has OpenAI's activation; None if nothing does."""
    if source.container == "torchscript" or "input_resolution" in source.weights:
        return "as in OpenAI's archives"
    if training_data_set(source) == SCENES:
        return "as in the examples of madtp"
    if _has_openai_precision(source.weights):
        return "as in OpenAI's models, whose mixture of float16 and float32 the file has"
    if any(pattern.search(key) for pattern in TRAINING_ONLY.values() for key in source.weights):
        return "as in OpenAI's models, from which the code of UPop and MADTP starts"
    return None


def _has_openai_precision(weights: Mapping[str, Tensor]) -> bool:
    """Return whether matrices are float16 and norms are float32, as OpenAI's conversion leaves a model."""
    halves = {value.dtype for key, value in weights.items() if key.endswith((".attn.in_proj_weight", "conv1.weight"))}
    norms = {value.dtype for key, value in weights.items() if ".ln_" in key or key.startswith("ln_final")}
    return halves == {torch.float16} and norms == {torch.float32}


def _assumptions(overrides: CheckpointOverrides, origin: str | None) -> str:
    names = {"quick_gelu": "quick GELU", "gelu": "GELU"}
    activation = f"{names.get(_activation(overrides), _activation(overrides))} ({origin})" if origin else "unknown"
    return (
        f"The file does not state everything. Used are: {head_width_note(overrides, 'published CLIP')}, "
        f"activation {activation}, layer-norm epsilon {EPSILON:g}."
    )
