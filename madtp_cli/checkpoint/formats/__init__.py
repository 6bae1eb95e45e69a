"""Checkpoint formats: one file per format.

A format knows how one program stores a model: the names of the tensors, and where the settings are. Each module
of this folder is one format. It must define what `Format` describes:

    NAME                             name of the format, as shown to the user
    recognise(source, overrides)     a `Recognised` if the content has this format, else None

Rules for a format:

* The content decides, never the name of the file. At most one format may recognise a source, except that one more
  may name it as a `fallback`.
* `recognise` reads nothing from the disk. `checkpoint.reading` has done so already.
* If the format is known but the model cannot be used, return a `Recognised` with a `refusal`.
* If the content has this format but is damaged, raise a `CheckpointError`.

To add a format, add one file here; no other file changes. A file whose name begins with an underscore is not a
format; it is shared by several formats.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from madtp_cli import models
from madtp_cli.checkpoint import other_tasks, state_dicts
from madtp_cli.errors import CheckpointError, UsageError

#: Keys that quantisation tools (bitsandbytes, GPTQ, AWQ, compressed-tensors) add to a weight or use instead of it.
QUANTISED = re.compile(r"\.(SCB|absmax|quant_map|qweight|qzeros|g_idx|weight_packed|weight_scale)$")


@dataclass(frozen=True)
class Source:
    """The content of a checkpoint file or folder.

    Attributes:
        path: The file or folder.
        container: "pickle", "safetensors", "torchscript" or "folder".
        weights: The tensors under the keys of the file, without wrappers and prefixes of training scripts.
        extras: What a file contains besides the state dict, such as the epoch.
        config: Content of config.json; None for a single file.
        open_clip: Content of the open_clip_config.json of the folder, or next to the file; None if there is none.
        notes: What reading chose among several sets of weights, as full sentences.
    """

    path: Path
    container: str
    weights: Mapping[str, Tensor]
    extras: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    open_clip: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointOverrides:
    """Settings that the user gives because the checkpoint does not state them, or states them wrongly.

    Attributes:
        head_width: Width of one attention head: one number for both towers, or one number by tower.
        image_size: Side of the image in pixels; the position embeddings are resized to it.
        activation: "gelu" or "quick_gelu"; files of CLIP models do not state it.
        weights: "raw" or "ema": which weights to take from a file that has averaged copies (EMA) too.
        match_token: "enc" or "cls", the first token of the texts that a BLIP matches with images.
        prompt: Text that begins every caption of a BLIP; it may be empty.
        task: Task to use the checkpoint for, where the models of both tasks have the same tensors.
    """

    head_width: int | Mapping[str, int] | None = None
    image_size: int | None = None
    activation: str | None = None
    weights: str | None = None
    match_token: str | None = None
    prompt: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (("activation", ("gelu", "quick_gelu")), ("weights", ("raw", "ema"))):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UsageError(f"--{name} {str(value)[:60]} is not allowed.\nGive one of {', '.join(choices)}.")

    def head_width_of(self, tower: str) -> int | None:
        """Return the head width that the user gave for a tower; None if there is none."""
        return self.head_width.get(tower) if isinstance(self.head_width, Mapping) else self.head_width


@dataclass(frozen=True)
class Recognised:
    """A checkpoint after a format has recognised it, with the tensor names of this package.

    Attributes:
        format: NAME of the format, or a longer form of it.
        task: "nlvr2", "vqa", "caption", "retrieval", or what else the checkpoint was made for.
        config: Fields of the configuration class that `model_type` names; empty if there is no such model.
        weights: Tensors under the keys of the model class of the task.
        dropped: Keys of the file that no model needs, by the reason.
        notes: What was assumed, converted or lost, as full sentences.
        refusal: Why the checkpoint cannot be loaded, and what to do; None if it can.
        fallback: Whether another format that recognises the checkpoint knows more about it.
    """

    format: str
    task: str
    config: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    dropped: Mapping[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refusal: str | None = None
    fallback: bool = False


class Format(Protocol):
    """What a module of this package defines."""

    NAME: str

    def recognise(self, source: Source, overrides: CheckpointOverrides) -> Recognised | None:
        """Return the checkpoint with the tensor names of this package, or None if it has another format."""


def all_formats() -> list[Format]:
    """Return every format, sorted by file name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def recognise(source: Source, overrides: CheckpointOverrides) -> Recognised:
    """Find the format of a source by its content.

    Args:
        source: Content of a file or folder, from `checkpoint.reading.read`.
        overrides: Settings that the user gave.

    Raises:
        CheckpointError: No format recognises it, or its content is damaged.
    """
    if refusal := _quantisation_refusal(source):
        return Recognised("quantised weights", "unknown", refusal=refusal)
    recognised = None if state_dicts.has_averages(source.weights) else _first(source, overrides)
    if recognised is None:
        weights, notes = state_dicts.without_prefix(source.path, source.weights, overrides.weights)
        source = replace(source, weights=weights, notes=(*source.notes, *notes))
        recognised = _first(source, overrides)
    if overrides.weights == "ema" and not any("averaged" in note for note in source.notes):
        raise UsageError(f"{source.path} has no averaged weights (EMA).\nLeave out --weights ema.")
    if recognised is not None:
        recognised = replace(recognised, notes=(*source.notes, *recognised.notes))
        return other_tasks.with_task(_with_text_conventions(recognised, overrides), overrides.task)
    first = ", ".join(key[:40] for key in sorted(source.weights)[:3])
    raise CheckpointError(
        f"{source.path} has {len(source.weights)} tensors of an unknown model ({first}, ...).\n"
        f"Give a checkpoint in one of these formats: {', '.join(entry.NAME for entry in all_formats())}."
    )


def _first(source: Source, overrides: CheckpointOverrides) -> Recognised | None:
    fallback = None
    for entry in all_formats():
        recognised = entry.recognise(source, overrides)
        if recognised is not None and not recognised.fallback:
            return recognised
        fallback = fallback or recognised
    return fallback


def _with_text_conventions(recognised: Recognised, overrides: CheckpointOverrides) -> Recognised:
    """Set how the user says that the model's texts begin.

    Raises:
        CheckpointError: The model has no such texts.
    """
    for name in ("match_token", "prompt"):
        value = getattr(overrides, name)
        if value is None or recognised.refusal or recognised.config.get(name) == value:
            continue
        family = models.family_of(recognised.config)
        if family.text_conventions.get(recognised.task) != name:
            raise CheckpointError(
                f"A {family.name} for {recognised.task} has no {name.replace('_', ' ')}.\n"
                f"Leave out --{name.replace('_', '-')}."
            )
        note = f"The {name.replace('_', ' ')} is {value!r}, as the user states."
        config = {**recognised.config, name: value}
        recognised = replace(recognised, config=config, notes=(*recognised.notes, note))
    return recognised


def _quantisation_refusal(source: Source) -> str | None:
    """Return why quantised weights cannot be loaded; None if the weights have full or half precision."""
    sign = next((key for key in source.weights if QUANTISED.search(key)), None) or next(
        (key for key, value in source.weights.items() if key.endswith(".weight") and value.element_size() == 1), None
    )
    if source.config and source.config.get("quantization_config"):
        sign = "quantization_config in its config.json"
    if sign is None:
        return None
    return f"its weights are quantised ({sign}) and cannot be fine-tuned.\nGive the model in float32 or float16."
