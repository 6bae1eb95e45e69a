"""Load a checkpoint: read the file once, recognise its format, compare it with the model, build the model.

The steps are in this order: `checkpoint.reading` reads the file, `checkpoint.formats` recognises it,
`checkpoint.inspection` compares its tensors with those of the model, `build` creates the model, and
`checkpoint.processors` finds the processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from madtp_cli.checkpoint import calibrated_curve, number_format, processors, tensors
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, madtp_folder
from madtp_cli.checkpoint.inspection import Inspection, compare, model_class, model_config, recognise
from madtp_cli.checkpoint.locating import locate
from madtp_cli.checkpoint.processors import Processor
from madtp_cli.checkpoint.quiet import without_progress_bars
from madtp_cli.config import BudgetRequest
from madtp_cli.errors import CheckpointError
from madtp_cli.models.prunable import Prunable


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What `load` returns.

    Attributes:
        model: The model on the CPU, in evaluation mode.
        processor: Its image processor and tokenizer.
        notes: What was assumed, converted or left out, as full sentences for the user.
        inspection: The comparison of the checkpoint with the model.
        stored: Number format of most weights in the file.
    """

    model: Prunable
    processor: Processor
    notes: tuple[str, ...]
    inspection: Inspection
    stored: torch.dtype = torch.float32


def load(
    source: Path,
    *,
    tokenizer: Path | None = None,
    head_width: int | Mapping[str, int] | None = None,
    image_size: int | None = None,
    activation: str | None = None,
    weights: str | None = None,
    match_token: str | None = None,
    prompt: str | None = None,
    task: str | None = None,
    gflops_budget: BudgetRequest | None = None,
) -> LoadedCheckpoint:
    """Load a checkpoint on the CPU, in evaluation mode, in float32 or the format that a folder of madtp states.

    Args:
        source: A checkpoint file or folder, or the hub name of a model in the local cache.
        tokenizer: Folder of the tokenizer; by default it is searched near the checkpoint and in the cache.
        image_size: Side of the image in pixels; by default the checkpoint's.
        head_width, activation, weights: See `inspection.inspect`.
        match_token: First token of the texts that a BLIP matches with images: "enc" or "cls".
        prompt: Text that begins every caption of a BLIP; it may be empty.
        task: Use the checkpoint for this task if its family's model for it has the same tensors.
        gflops_budget: Another budget, see `calibrated_curve.set_budget`.

    Raises:
        CheckpointError: It cannot be read or used, or lacks tensors or a tokenizer.
    """
    source = locate(Path(source))
    overrides = CheckpointOverrides(head_width, image_size, activation, weights, match_token, prompt, task)
    recognised = recognise(source, overrides)
    inspection = compare(source, recognised)
    _require_loadable(inspection)
    tensors.require_finite(source, recognised.weights)
    processor = processors.find(source, tokenizer, model_config(recognised.config))
    model = build(recognised)
    calibrated_curve.set_budget(model, gflops_budget, source)
    model.config.text_config.update(processors.special_ids(model.config, processors.tokenizer_of(processor)))
    stored = number_format.main_format(recognised.weights.values())
    return LoadedCheckpoint(model, processor, (*inspection.notes, *_left_out(inspection)), inspection, stored)


def _require_loadable(inspection: Inspection) -> None:
    if inspection.refusal:
        raise CheckpointError(f"{inspection.source} cannot be used: {inspection.refusal}")
    if inspection.missing:
        raise CheckpointError(
            f"{inspection.source} lacks {len(inspection.missing)} tensors that a {inspection.format} for "
            f"{inspection.task} needs, such as {inspection.missing[0]}.\n"
            "The file is incomplete: download or copy it again."
        )
    if inspection.reshaped:
        first = [
            f"{key} has shape {in_file}, but the other tensors need {in_model}"
            for key, (in_file, in_model) in list(inspection.reshaped.items())[:3]
        ]
        raise CheckpointError(
            f"{inspection.source}: {'; '.join(first)}.\nThe file is inconsistent: get it again from where it was made."
        )


def _left_out(inspection: Inspection) -> tuple[str, ...]:
    """Return a note about the tensors that the model does not use."""
    keys = inspection.unexpected
    if not keys:
        return ()
    return (f"The model does not use {len(keys)} tensors of the file, such as {keys[0]}. They are left out.",)


def build(recognised: Recognised) -> Prunable:
    """Build the model of a recognised checkpoint, in evaluation mode, with a copy of the weights."""
    stated = recognised.config.get("dtype") if recognised.format == madtp_folder.NAME else None
    with without_progress_bars():
        model: Prunable = model_class(recognised.config).from_pretrained(
            None,
            config=model_config(recognised.config),
            # Tensors can be views of the file, so they are copied.
            state_dict={key: value.clone() for key, value in recognised.weights.items()},
            dtype=number_format.FORMATS.get(str(stated), torch.float32),
        )
    return model.eval()
