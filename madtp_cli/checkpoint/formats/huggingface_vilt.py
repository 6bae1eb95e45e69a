"""Folders that transformers writes for ViLT: NLVR2 and VQA; its other classes are refused by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import ViltConfig

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.formats._transformers_folder import (
    architecture,
    completed,
    reported_settings,
    require_weights,
    selected,
    set_activation,
)
from madtp_cli.checkpoint.tower_shapes import shape

NAME = "transformers folder of ViLT"
#: The model type in transformers' config.json.
MODEL_TYPE = "vilt"
#: Settings of the blocks and of the images, and of the words, that are copied from config.json.
BLOCKS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps",
          "hidden_act", "qkv_bias")  # fmt: skip
VISION = (*BLOCKS, "image_size", "patch_size")
TEXT = (*BLOCKS, "vocab_size", "max_position_embeddings", "type_vocab_size", "modality_type_vocab_size", "pad_token_id")
#: The classifier's first and last matrix.
FIRST, LAST = "classifier.0.weight", "classifier.3.weight"
OTHER_HEAD = (
    "a ViLT ({}) that is fine-tuned neither for NLVR2 nor for VQA.\n"
    "Give a ViltForImagesAndTextClassification for two images, or a ViltForQuestionAnswering."
)


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder whose config.json has the model type of ViLT."""
    if source.config is None or source.config.get("model_type") != MODEL_TYPE:
        return None
    require_weights(source)
    with reported_settings(source):
        stored = ViltConfig.from_dict(copy.deepcopy(dict(source.config)))
        task = _task(source.weights, stored)
        if task is None:
            return Recognised(NAME, MODEL_TYPE, refusal=OTHER_HEAD.format(architecture(source.config)))
        config = _config(stored, task)
    refusal = _limit_refusal(stored) or _head_refusal(overrides)
    return completed(Recognised(NAME, task, config, source.weights, refusal=refusal), source, overrides, _adjust)


def _limit_refusal(stored: ViltConfig) -> str | None:
    """Return why a limit of the patches of an image cannot be followed; None if there is none."""
    most = stored.max_image_length
    if not isinstance(most, int) or most < 0:
        return None
    return (
        f"a ViLT that reads only {most} patches of an image, which transformers draws at random.\n"
        "Set max_image_length to -1 in its config.json, as in the published models, to read all patches."
    )


def _head_refusal(overrides: CheckpointOverrides) -> str | None:
    """Return why head widths by tower cannot be used; None if they can."""
    words, patches = (overrides.head_width_of(tower) for tower in ("text", "vision"))
    if words is None or words == patches:
        return None
    return (
        f"a ViLT, whose words go through the same blocks as its patches, so text={words} cannot differ from vision.\n"
        "Give one head width: --head-width N."
    )


def _adjust(config: dict[str, Any], overrides: CheckpointOverrides) -> list[str]:
    """Set the activation that the user gave, and the heads of the words, which go through the same blocks."""
    config["text_config"]["num_attention_heads"] = config["vision_config"]["num_attention_heads"]
    return set_activation(config, overrides)


def _task(weights: Mapping[str, Tensor], config: ViltConfig) -> str | None:
    """Return the task that the classifier is for; None if there is none that can be used."""
    if FIRST not in weights or LAST not in weights:
        return None
    (outputs, inputs), (labels, _) = shape(weights, FIRST, 2), shape(weights, LAST, 2)
    if (outputs, inputs, labels) == (2 * config.hidden_size, 2 * config.hidden_size, 2):
        return "nlvr2"
    return "vqa" if (outputs, inputs) == (2 * config.hidden_size, config.hidden_size) else None


def _config(stored: ViltConfig, task: str) -> dict[str, Any]:
    """Return our configuration, in two parts."""
    fields = stored.to_dict()
    answers = [str(stored.id2label[number]) for number in range(stored.num_labels)] if task == "vqa" else None
    return {
        "model_type": "madtp_vilt",
        "task": task,
        "vision_config": selected(fields, VISION),
        "text_config": {name: fields[name] for name in TEXT},
        "answers": answers,
    }
