"""What formats tell from names and shapes, whoever wrote the file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from madtp_cli import models
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, Source, resize_positions
from madtp_cli.errors import CheckpointError

#: Width of one attention head in every published BLIP and CLIP.
HEAD_WIDTH = 64

#: Keys of retrieval files, BLIP's and CLIP's, that only training needs.
OF_TRAINING = {
    "momentum copies": re.compile(r"^\w+_m(\.|$)"),
    "queues of the contrastive loss": re.compile(r"^(\w+_queue|queue_ptr)$"),
}

#: A decoder's output layer, and what it is one with in the model; files may have either or both.
TIED = {
    "text_decoder.cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}

PRETRAINED = (
    "a pre-trained BLIP: it has no NLVR2 head and its other heads were not fine-tuned, so there is no answer whose "
    "quality could be kept.\nFine-tune it first, or take a fine-tuned checkpoint such as model_base_nlvr.pth or "
    "model_base_retrieval_coco.pth."
)
HEADLESS = "a BLIP without a task head.\nGive one fine-tuned for a task, such as model_base_nlvr.pth."
BLIP_2 = (
    "a BLIP-2, in which a Q-Former stands between the image tower and a language model.\n"
    "Give a BLIP, such as model_base_caption_capfilt_large.pth."
)


def split_off(
    weights: Mapping[str, Tensor], reasons: Mapping[str, re.Pattern[str]]
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """The weights that no reason speaks against, and the keys of the others by their reason."""
    kept: dict[str, Tensor] = {}
    dropped: dict[str, list[str]] = {}
    for key, value in weights.items():
        if reason := next((reason for reason, pattern in reasons.items() if pattern.search(key)), None):
            dropped.setdefault(reason, []).append(key)
        else:
            kept[key] = value
    return kept, dropped


def blip_task(keys: Iterable[str]) -> tuple[str, str | None]:
    """What a BLIP does, by its parts, and why it cannot be compressed if it cannot."""
    keys = tuple(keys)
    parts = {key.split(".")[0] for key in keys}
    if {"Qformer", "qformer", "query_tokens"} & parts:
        return "blip-2", BLIP_2
    if "cls_head" in parts or any(".crossattention.self0." in key for key in keys):
        return "nlvr2", None
    if not {"visual_encoder", "vision_model"} & parts:
        return "text", "the text part of a BLIP; there is no image tower to prune.\nGive the whole checkpoint."
    if not {"text_encoder", "text_decoder", "text_model"} & parts:
        return "images", "the image tower of a BLIP alone, which has no task.\nGive the whole checkpoint."
    if "itm_head" in parts:
        return ("pretraining", PRETRAINED) if "text_decoder" in parts else ("retrieval", None)
    if "text_decoder" in parts:
        return ("vqa" if "text_encoder" in parts else "caption"), None
    return "features", HEADLESS


def tied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a BLIP with a decoder's output layer, where the file leaves out what it is one with."""
    absent = {key: weights[twin] for key, twin in TIED.items() if key not in weights and twin in weights}
    return {**weights, **absent}


def depth(weights: Iterable[str], prefix: str) -> int:
    """Number of layers whose keys begin with `prefix`."""
    numbers = [int(key.removeprefix(prefix).split(".")[0]) for key in weights if key.startswith(prefix)]
    if not numbers:
        raise KeyError(prefix + "0")
    return max(numbers) + 1


def heads(width: int, overrides: CheckpointOverrides) -> int:
    """Attention heads of a tower; 1 where `odd_heads` has something to say."""
    head_width = overrides.head_width or HEAD_WIDTH
    return 1 if width % head_width else width // head_width


def odd_heads(config: Mapping[str, Any], overrides: CheckpointOverrides) -> str | None:
    """The refusal of a checkpoint whose heads cannot be told."""
    head_width = overrides.head_width or HEAD_WIDTH
    for tower in ("vision", "text"):
        width = config[f"{tower}_config"]["hidden_size"]
        if width % head_width:
            return (
                f"its {tower} width {width} is no multiple of {head_width}, the usual width of one attention head.\n"
                "The number of heads is not in the file: say it with --head-width."
            )
    return None


def pruned(weights: Mapping[str, Tensor], rows: Mapping[str, int]) -> str | None:
    """The refusal of a checkpoint with smaller matrices; `rows` is what keys with such an end should have."""
    for key, value in weights.items():
        expected = next((count for end, count in rows.items() if key.endswith(end)), None)
        if expected is not None and value.shape[0] != expected:
            return (
                f"a checkpoint whose weights were pruned, as UPop does ({key} has {value.shape[0]} rows, "
                f"not {expected}).\nGive the dense model."
            )
    return None


def resized(found: Recognised, image_size: int | None) -> Recognised:
    """A checkpoint for images of another size, in pixels, with a note of it."""
    vision = found.config["vision_config"]
    if image_size is None or vision["image_size"] == image_size:
        return found
    key = models.family_of(found.config).position_key
    old = found.weights[key]
    # BLIP's have an axis for the batch.
    new = resize_positions(old.reshape(1, -1, old.shape[-1]), image_size, vision["patch_size"])
    note = f"Position embeddings resized from {vision['image_size']} to {image_size} pixels."
    return dataclasses.replace(
        found,
        config={**found.config, "vision_config": {**vision, "image_size": image_size}},
        weights={**found.weights, key: new.reshape(*old.shape[:-2], -1, old.shape[-1])},
        notes=(*found.notes, note),
    )


def trained_on(source: Source) -> str | None:
    """The data set, where a checkpoint's own record names it; the published files' does not."""
    record = source.extras.get("config")
    name = record.get("dataset") if isinstance(record, Mapping) else None
    return name if isinstance(name, str) else None


def said_of_heads(overrides: CheckpointOverrides, family: str) -> str:
    """The beginning of a note: which heads, and whence we know."""
    return f"Heads of width {overrides.head_width or HEAD_WIDTH} ({'told' if overrides.head_width else f'as in every {family}'})"


def said_of_training(source: Source) -> tuple[str, ...]:
    """A note of the epoch, where the file names it."""
    if "epoch" not in source.extras:
        return ()
    return (f"Saved after epoch {source.extras['epoch']} of its training (counted from 0).",)


def incomplete(source: Source, family: str, error: KeyError) -> CheckpointError:
    """The error of a file that lacks a tensor which the sizes are read off."""
    return CheckpointError(
        f"{source.path} is a {family} without the tensor {error.args[0]}, so its sizes cannot be told.\n"
        "The file is incomplete; download or copy it again."
    )
