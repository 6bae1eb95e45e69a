"""Folders that transformers writes for BLIP-2. Only its class for retrieval, which has no language model, can be used.

Its tensors already have the names of this package, and config.json states what shapes do not show.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from transformers import Blip2Config

from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source
from madtp_cli.checkpoint.formats._transformers_folder import (
    architecture,
    completed,
    reported_settings,
    require_weights,
    selected,
)

NAME = "transformers folder of BLIP-2"
#: The model type in transformers' config.json.
MODEL_TYPE = "blip-2"
#: Settings that are copied from config.json; the other ones do not change what the model computes.
TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps",
         "hidden_act")  # fmt: skip
VISION = (*TOWER, "image_size", "patch_size", "qkv_bias")
TEXT = (*TOWER, "vocab_size", "max_position_embeddings", "pad_token_id", "cross_attention_frequency")
#: Parts of a model for retrieval, by the beginning of their keys.
PARTS = ("vision_model", "query_tokens", "embeddings", "qformer", "vision_projection", "text_projection", "itm_head")

LANGUAGE_MODEL = (
    "a BLIP-2 with a language model behind its Q-Former ({}): only the image tower is pruned here, and texts are not "
    "generated.\nGive a Blip2ForImageTextRetrieval, such as Salesforce/blip2-itm-vit-g."
)


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    """Recognise a folder whose config.json has the model type of BLIP-2."""
    if source.config is None or source.config.get("model_type") != MODEL_TYPE:
        return None
    if refusal := _refusal(source):
        return Recognised(NAME, "retrieval", refusal=refusal)
    with reported_settings(source):
        config = _config(source.config)
    return completed(Recognised(NAME, "retrieval", config, source.weights), source, overrides)


def _refusal(source: Source) -> str | None:
    """Return why a folder cannot be used; None if it is a model for retrieval.

    Raises:
        CheckpointError: It has no weights.
    """
    named = architecture(source.config)
    parts = {key.split(".")[0] for key in source.weights}
    if {"language_model", "language_projection"} & parts or "ConditionalGeneration" in named:
        return LANGUAGE_MODEL.format(named)
    require_weights(source)
    absent = [part for part in PARTS if part not in parts]
    if absent:
        return (
            f"a BLIP-2 ({named}) without {', '.join(absent)}: its Q-Former reads no texts.\n"
            "Give a Blip2ForImageTextRetrieval, such as Salesforce/blip2-itm-vit-g."
        )
    return None


def _config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return our configuration; the Q-Former is its text tower."""
    # huggingface_hub 1 refuses impossible architectures, which the model does not depend on.
    used = {name: value for name, value in settings.items() if name != "architectures"}
    stored = Blip2Config.from_dict(copy.deepcopy(used)).to_dict()
    return {
        "model_type": "madtp_blip2",
        "task": "retrieval",
        "vision_config": selected(stored["vision_config"], VISION),
        "text_config": {name: stored["qformer_config"][name] for name in TEXT},
        "num_query_tokens": stored["num_query_tokens"],
        "image_text_hidden_size": stored["image_text_hidden_size"],
    }
