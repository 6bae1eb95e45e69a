"""Folders that transformers writes for ViLT: NLVR2 and VQA; its other classes are refused by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import ViltConfig

from madtp_cli.checkpoint.config_schema import require_valid
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.formats._transformers_folder import (
    NAME,
    architecture,
    reported_settings,
    require_weights,
    selected,
)
from madtp_cli.checkpoint.position_embeddings import with_image_size

#: The model type in transformers' config.json.
MODEL_TYPE = "vilt"
#: Settings of the blocks and of the images, and of the words, that are copied from config.json.
BLOCKS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps",
          "hidden_act", "qkv_bias")  # fmt: skip
VISION = (*BLOCKS, "image_size", "patch_size")
TEXT = (*BLOCKS, "vocab_size", "max_position_embeddings", "type_vocab_size", "modality_type_vocab_size", "pad_token_id")
#: The classifier's first and last matrix.
FIRST, LAST = "classifier.0.weight", "classifier.3.weight"


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder whose config.json has the model type of ViLT."""
    if source.config is None or source.config.get("model_type") != MODEL_TYPE:
        return None
    require_weights(source)
    with reported_settings(source):
        stored = ViltConfig.from_dict(copy.deepcopy(dict(source.config)))
        task = _task(source.weights, stored)
        if task is None:
            return Recognised(NAME, MODEL_TYPE, refusal=_refusal(source))
        config = _config(stored, task)
    require_valid(config, source.path / "config.json")
    return with_image_size(Recognised(NAME, task, config, dict(source.weights)), overrides.image_size)


def _refusal(source: Source) -> str:
    """Return why a folder cannot be used."""
    return (
        f"a ViLT ({architecture(source.config)}) that is fine-tuned neither for NLVR2 nor for VQA.\n"
        "Give a ViltForImagesAndTextClassification for two images, or a ViltForQuestionAnswering."
    )


def _task(weights: Mapping[str, Tensor], config: ViltConfig) -> str | None:
    """Return the task that the classifier is for; None if there is none that can be used."""
    if FIRST not in weights or LAST not in weights:
        return None
    outputs, inputs = weights[FIRST].shape
    if (outputs, inputs, len(weights[LAST])) == (2 * config.hidden_size, 2 * config.hidden_size, 2):
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
