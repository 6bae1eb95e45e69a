"""Folders that transformers writes for SigLIP, and for SigLIP 2 of fixed resolution, which has the same model type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import SiglipConfig

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, _image_encoder
from madtp_cli.checkpoint.formats._transformers_folder import (
    TEXT,
    ModelType,
    architecture,
    recognise_type,
    set_activation,
)

NAME = "transformers folder of SigLIP"

#: Parts of a whole SigLIP, by the beginning of their keys.
PARTS = ("vision_model", "text_model", "logit_scale", "logit_bias")
#: A convolution of patches has four axes. NaFlex has a matrix instead.
PATCHES = "vision_model.embeddings.patch_embedding.weight"
#: The token that ends and pads a text in the first SigLIP, and its word pieces: the defaults of transformers.
END, VOCABULARY = 1, 32_000

NAFLEX = (
    "a SigLIP 2 for images of any size and shape (NaFlex): the number of its patches changes with each image.\n"
    "Give a SigLIP 2 of fixed resolution, such as google/siglip2-base-patch16-224."
)


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder of transformers, or the weights of a NaFlex model without config.json."""
    name = str((source.config or {}).get("model_type"))
    patches = source.weights.get(PATCHES)
    flexible = patches is not None and patches.dim() == 2 and f"{PARTS[0]}.head.probe" in source.weights
    if name == "siglip2" or (flexible and source.config is None):
        return Recognised(NAME, "retrieval", refusal=NAFLEX)
    return recognise_type(name, MODEL_TYPES[name], source, overrides) if name in MODEL_TYPES else None


def _task(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[str, str | None]:
    if PATCHES in weights and weights[PATCHES].dim() == 2:
        return "retrieval", NAFLEX
    absent = [part for part in PARTS if part not in {key.split(".")[0] for key in weights}]
    if absent:
        return "retrieval", (
            f"a SigLIP ({architecture(settings)}) without {', '.join(absent)}.\n"
            "Give a whole SiglipModel; retrieval needs both towers."
        )
    return "retrieval", None


def _vision_task(weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> tuple[str, str | None]:
    tower = _image_encoder.with_tower(weights)
    if PATCHES in tower and tower[PATCHES].dim() == 2:
        return _image_encoder.TASK, NAFLEX
    if f"{PARTS[0]}.head.probe" not in tower:
        return _image_encoder.TASK, (
            "a SiglipVisionModel without its attention pooling (vision_use_head is false), so it has no embedding.\n"
            "Give a SiglipVisionModel with its head, or a whole SiglipModel."
        )
    return _image_encoder.TASK, None


def _correct_vision(settings: dict[str, Any]) -> None:
    _image_encoder.as_whole(settings)
    _correct(settings)


def _correct(settings: dict[str, Any]) -> None:
    """Set the special tokens that config.json leaves to transformers, whose defaults are not in the vocabulary."""
    text = settings.setdefault("text_config", {})
    vocabulary = text.get("vocab_size", VOCABULARY)
    for field, value in (("bos_token_id", None), ("eos_token_id", END)):
        given = text.get(field)
        if not isinstance(given, int) or given >= vocabulary:
            text[field] = value


#: The supported model types of transformers.
MODEL_TYPES = {
    "siglip": ModelType(
        config_class=SiglipConfig,
        text_settings=(*TEXT, "projection_size"),
        task=_task,
        settings={"retrieval": ("trained_on",)},
        adjust=set_activation,
        correct=_correct,
        format=NAME,
    ),
    "siglip_vision_model": ModelType(
        config_class=SiglipConfig,
        text_settings=(*TEXT, "projection_size"),
        task=_vision_task,
        settings={_image_encoder.TASK: ("trained_on",)},
        adjust=set_activation,
        complete=_image_encoder.with_tower,
        correct=_correct_vision,
        family="siglip",
        format=NAME,
    ),
}
