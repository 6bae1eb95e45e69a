"""Checkpoints: what is it, load it, save it.

`inspect` explains any source without building its model, `load` gives model and processor of
one that can be used, `save` writes a folder that `load` and transformers read back.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers.utils import logging as transformers_logging

from madtp_cli import models
from madtp_cli.checkpoint import formats, processors, remote_code
from madtp_cli.checkpoint.atomic_write import check_output as check_output
from madtp_cli.checkpoint.atomic_write import write_whole
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, madtp_folder
from madtp_cli.checkpoint.processors import Processor
from madtp_cli.checkpoint.reading import locate, read
from madtp_cli.checkpoint.tower_shapes import TIED
from madtp_cli.errors import CheckpointError
from madtp_cli.models.prunable import Prunable

logger = logging.getLogger(__name__)

#: What is told of a tower, and where transformers' configuration has it.
TOWER_SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
}
SIZES = {
    "vision": TOWER_SIZES | {"image_size": "image_size", "patch_size": "patch_size"},
    "text": TOWER_SIZES | {"vocabulary": "vocab_size", "positions": "max_position_embeddings"},
}


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is.

    `towers` has each tower's sizes; `parameters` counts the weights in use, those of two names once. `matched`,
    `missing` and `unexpected` compare our keys with the model's; `reshaped` are keys whose shapes differ, with the
    file's and the model's. `dropped` are the file's keys that no model needs, by the reason. `refusal`
    says why it cannot be loaded; all comparisons are empty then.
    """

    source: str
    format: str
    task: str
    towers: dict[str, dict[str, int]] = field(default_factory=dict)
    parameters: int = 0
    precision: str = ""
    matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refusal: str | None = None


def inspect(
    source: Path,
    *,
    head_width: int | None = None,
    image_size: int | None = None,
    activation: str | None = None,
) -> Inspection:
    """Say what a checkpoint is, from its keys and shapes alone.

    Args:
        source: A checkpoint file or folder.
        head_width: Width of one attention head; 64 unless told.
        image_size: Image side in pixels, if it is to differ from the file's.
        activation: Of CLIP's feed-forwards, "quick_gelu" unless told; OpenCLIP trains with "gelu".

    Raises:
        CheckpointError: There is no checkpoint, or it is of no known kind.
    """
    source = Path(source)
    return compare(source, recognise(source, CheckpointOverrides(head_width, image_size, activation), values=False))


def recognise(source: Path, overrides: CheckpointOverrides, *, values: bool = True) -> Recognised:
    """A checkpoint in our terms; without `values` its tensors may be on the meta device."""
    return formats.recognise(read(source, values=values), overrides)


def compare(source: Path, found: Recognised) -> Inspection:
    """Hold what was recognised against the model that it would be loaded into."""
    described = Inspection(
        str(source),
        found.format,
        found.task,
        towers=_towers(found.config),
        parameters=sum(value.numel() for value in found.weights.values()),
        precision=", ".join(sorted({str(value.dtype).removeprefix("torch.") for value in found.weights.values()})),
        dropped=dict(found.dropped),
        notes=list(found.notes),
        refusal=found.refusal,
    )
    return described if found.refusal else _with_keys(described, found)


def _with_keys(described: Inspection, found: Recognised) -> Inspection:
    expected = _expected(described.source, found.config)
    common = expected.keys() & found.weights.keys()
    shapes = {key: (list(found.weights[key].shape), list(expected[key].shape)) for key in sorted(common)}
    reshaped = {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}
    missing = [key for key in expected if key not in found.weights and not any(part in key for part in found.fresh)]
    unexpected = [key for key in found.weights if key not in expected]
    return dataclasses.replace(
        described,
        parameters=sum(found.weights[key].numel() for key in common - TIED.keys()),
        matched=len(common) - len(reshaped),
        missing=missing,
        unexpected=unexpected,
        reshaped=reshaped,
    )


def _expected(source: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's keys, on the meta device, which has shapes but no memory."""
    try:
        with torch.device("meta"):
            return _model_class(config)(_config(config)).state_dict()
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"{source}: no model can be made of its settings ({error}).") from error


def _model_class(fields: Mapping[str, Any]) -> Any:
    """The class of models of these settings.

    Raises:
        CheckpointError: There is none for this family and task.
    """
    kind = _kind(fields)
    if kind not in models.kinds():
        known = ", ".join(name.replace(".", " for ") for name in models.kinds())
        raise CheckpointError(f"There is no model for {kind.replace('.', ' for ')}.\nKnown: {known}.")
    return models.get(kind)


def _kind(fields: Mapping[str, Any]) -> str:
    """As `models.kind_of`; folders that early versions wrote are BLIPs."""
    return f"{str(fields.get('model_type', 'madtp_blip')).removeprefix('madtp_')}.{fields.get('task')}"


def _config(fields: Mapping[str, Any]) -> Any:
    return _model_class(fields).config_class.from_dict(copy.deepcopy(dict(fields)))


def _towers(fields: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    if not fields:
        return {}
    # What no model of ours is made for, as a BLIP before any task, is described too.
    whole = _config(fields).to_dict() if _kind(fields) in models.kinds() else fields
    towers = {
        tower: {size: whole[f"{tower}_config"][attribute] for size, attribute in sizes.items()}
        for tower, sizes in SIZES.items()
    }
    vision = towers["vision"]
    vision["tokens"] = (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    return towers


def load(
    source: Path,
    *,
    tokenizer: Path | None = None,
    head_width: int | None = None,
    image_size: int | None = None,
    activation: str | None = None,
) -> tuple[Prunable, Processor]:
    """Load a checkpoint on the CPU, in evaluation mode.

    A folder of ours keeps its precision; what other files store is computed in float32.

    Args:
        source: A checkpoint file or folder.
        tokenizer: Folder of the tokenizer; else it is looked for beside the checkpoint.
        head_width: Width of one attention head; 64 unless told, which every published BLIP and CLIP has.
        image_size: Image side in pixels, if it is to differ from the file's.
        activation: Of CLIP's feed-forwards; see `inspect`.

    Raises:
        CheckpointError: It cannot be read, cannot be used, or lacks weights or a tokenizer.
    """
    source = locate(Path(source))
    found = recognise(source, CheckpointOverrides(head_width, image_size, activation))
    described = compare(source, found)
    _require_loadable(described)
    for note in described.notes:
        logger.info("%s: %s", source.name, note)
    if described.unexpected:
        logger.warning("%s: %d tensors have no place and are left out.", source.name, len(described.unexpected))
    ready = processors.find(source, tokenizer, _config(found.config))
    model = build(found)
    model.config.text_config.update(processors.special_ids(model.config, ready.tokenizer))
    return model, ready


def _require_loadable(described: Inspection) -> None:
    if described.refusal:
        raise CheckpointError(f"{described.source}: {described.refusal}")
    if described.missing:
        raise CheckpointError(
            f"{described.source} lacks {len(described.missing)} tensors of a {described.format} for {described.task}, "
            f"such as {described.missing[0]}.\nThe file is incomplete; download or copy it again."
        )
    for key, (file, model) in described.reshaped.items():
        raise CheckpointError(
            f"{described.source}: {key} has shape {file}, but the rest of the checkpoint asks for {model}.\n"
            "The file is inconsistent; take it from where it was made."
        )


def build(found: Recognised) -> Prunable:
    """The model of a recognised checkpoint, in evaluation mode, with weights of its own.

    Parameters that `found.fresh` names start from random values of torch's global seed.
    """
    dtypes = {value.dtype for value in found.weights.values()}
    keeps = found.format == madtp_folder.NAME and len(dtypes) == 1
    with _quietly():
        model: Prunable = _model_class(found.config).from_pretrained(
            None,
            config=_config(found.config),
            # Cloned, since read tensors can be views of the file.
            state_dict={key: value.clone() for key, value in found.weights.items()},
            dtype=dtypes.pop() if keeps else torch.float32,
        )
    return model.eval()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' progress bars, which it shows for every read and write."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def save(
    model: Prunable,
    processor: Processor,
    folder: Path,
    *,
    files: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint folder, whole or not at all.

    Args:
        model: Saved as model.safetensors, config.json and, for readers without this package, its code.
        processor: Image settings and tokenizer.
        folder: Where to; its parent must exist.
        files: Further text files by name, such as report.json.
        overwrite: Replace a folder that madtp wrote.

    Raises:
        OutputError: The folder cannot be written, or is not to be replaced.
    """
    with write_whole(Path(folder), overwrite) as new:
        try:
            with _quietly():
                model.save_pretrained(new)
        except SafetensorError as error:  # its writer's word for a full disk
            raise OSError(str(error)) from error
        remote_code.write(model, new)
        processor.save_pretrained(new)
        for name, text in (files or {}).items():
            (new / name).write_text(text, encoding="utf-8")
