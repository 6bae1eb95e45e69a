"""Save a model as a checkpoint folder that `checkpoint.load` and transformers can read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError

from madtp_cli.checkpoint import number_format, remote_code
from madtp_cli.checkpoint.atomic_write import write_folder
from madtp_cli.checkpoint.processors import Processor, tokenizer_of
from madtp_cli.checkpoint.quiet import without_progress_bars
from madtp_cli.checkpoint.tokenizer_files import forget_lengths
from madtp_cli.models.prunable import Prunable


def save(
    model: Prunable,
    processor: Processor,
    folder: Path,
    *,
    files: Callable[[Path], Mapping[str, str | bytes]] = lambda folder: {},
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a checkpoint folder. If writing fails, nothing is left behind.

    Args:
        model: Saved as model.safetensors, config.json and its code, which readers without this package need.
        processor: Image settings and tokenizer.
        folder: The output folder; missing folders above it are made.
        files: Returns further files by name, texts or bytes, such as report.json, for the folder with everything else.
        overwrite: Replace an existing folder if madtp wrote it.
        dtype: Number format of the saved weights; None for the model's own. Readers compute in the model's own format.

    Raises:
        OutputError: The folder cannot be written or must not be replaced.
    """
    weights = None if dtype is None else number_format.weights_in(model, dtype)
    with write_folder(Path(folder), overwrite) as new:
        try:
            with without_progress_bars():
                model.save_pretrained(new, state_dict=weights)
        except SafetensorError as error:  # raised when the disk is full
            raise OSError(str(error)) from error
        remote_code.write(model, new)
        forget_lengths(tokenizer_of(processor))
        processor.save_pretrained(new)
        remote_code.write_processor(processor, new)
        for name, content in files(new).items():
            (new / name).write_bytes(content.encode() if isinstance(content, str) else content)
