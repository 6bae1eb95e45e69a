"""Load a checkpoint: read the file once, recognise its format, compare it with the model, build the model.

The steps are in this order: `checkpoint.reading` reads the file, `checkpoint.formats` recognises it,
`checkpoint.inspection` compares its tensors with those of the model, `build` creates the model, and
`checkpoint.processors` finds the processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from madtp_cli.checkpoint import processors
from madtp_cli.checkpoint.formats import CheckpointOverrides, Recognised, madtp_folder
from madtp_cli.checkpoint.inspection import Inspection, compare, model_class, model_config, recognise
from madtp_cli.checkpoint.processors import Processor
from madtp_cli.checkpoint.quiet import without_progress_bars
from madtp_cli.checkpoint.reading import locate
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
    """

    model: Prunable
    processor: Processor
    notes: tuple[str, ...]
    inspection: Inspection


def load(
    source: Path,
    *,
    tokenizer: Path | None = None,
    head_width: int | None = None,
    image_size: int | None = None,
    activation: str | None = None,
    match_token: str | None = None,
    prompt: str | None = None,
) -> LoadedCheckpoint:
    """Load a checkpoint on the CPU, in evaluation mode.

    A folder that madtp wrote keeps its precision. Other checkpoints are loaded in float32.

    Args:
        source: A checkpoint file or folder, or the hub name of a model in the local cache.
        tokenizer: Folder of the tokenizer; by default it is searched near the checkpoint and in the cache.
        head_width: Width of one attention head; by default 64, as in every published BLIP and CLIP.
        image_size: Side of the image in pixels; by default the checkpoint's.
        activation: Activation of CLIP's feed-forward layers, see `inspection.inspect`.
        match_token: First token of the texts that a BLIP matches with images: "enc" or "cls".
        prompt: Text that begins every caption of a BLIP; it may be empty.

    Raises:
        CheckpointError: The checkpoint cannot be read or used, or lacks tensors or a tokenizer.
    """
    source = locate(Path(source))
    recognised = recognise(source, CheckpointOverrides(head_width, image_size, activation, match_token, prompt))
    inspection = compare(source, recognised)
    _require_loadable(inspection)
    processor = processors.find(source, tokenizer, model_config(recognised.config))
    model = build(recognised)
    model.config.text_config.update(processors.special_ids(model.config, processor.tokenizer))
    return LoadedCheckpoint(model, processor, (*inspection.notes, *_left_out(inspection)), inspection)


def _require_loadable(inspection: Inspection) -> None:
    if inspection.refusal:
        raise CheckpointError(f"{inspection.source} cannot be used: {inspection.refusal}")
    if inspection.missing:
        raise CheckpointError(
            f"{inspection.source} lacks {len(inspection.missing)} tensors that a {inspection.format} for "
            f"{inspection.task} needs, such as {inspection.missing[0]}.\n"
            "The file is incomplete: download or copy it again."
        )
    for key, (in_file, in_model) in inspection.reshaped.items():
        raise CheckpointError(
            f"{inspection.source}: {key} has shape {in_file}, but the other tensors need {in_model}.\n"
            "The file is inconsistent: get it again from where it was made."
        )


def _left_out(inspection: Inspection) -> tuple[str, ...]:
    """Return a note about the tensors that the model does not use."""
    keys = inspection.unexpected
    if not keys:
        return ()
    return (f"The model does not use {len(keys)} tensors of the file, such as {keys[0]}. They are left out.",)


def build(recognised: Recognised) -> Prunable:
    """Build the model of a recognised checkpoint, in evaluation mode, with a copy of the weights."""
    dtypes = {value.dtype for value in recognised.weights.values()}
    keeps_precision = recognised.format == madtp_folder.NAME and len(dtypes) == 1
    with without_progress_bars():
        model: Prunable = model_class(recognised.config).from_pretrained(
            None,
            config=model_config(recognised.config),
            # Tensors can be views of the file, so they are copied.
            state_dict={key: value.clone() for key, value in recognised.weights.items()},
            dtype=dtypes.pop() if keeps_precision else torch.float32,
        )
    return model.eval()
