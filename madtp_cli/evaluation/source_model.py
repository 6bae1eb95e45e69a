"""The dense model that a compressed folder is compared with: the checkpoint it was made of, if it is still there."""

from __future__ import annotations

from pathlib import Path

from madtp_cli.checkpoint import loading
from madtp_cli.config import RunSettings
from madtp_cli.errors import InputError
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.reading import read_report
from madtp_cli.reporting.schema import CompressReport

#: Settings of a run that say how a checkpoint is read.
READING = ("head_width", "activation", "weights", "match_token", "prompt")


def find(folder: Path, settings: RunSettings, dense: Path | None, task: str) -> tuple[Prunable, str] | None:
    """Return the dense model of a folder and its name, or None if it is not known or not there any more.

    Args:
        folder: The folder of the pruned model.
        settings: How to read the checkpoint `dense`.
        dense: The checkpoint to take instead of the one that the folder was made of.
        task: The task of the pruned model.

    Raises:
        CheckpointError: `dense` cannot be used.
    """
    if dense is not None:
        given = {name: getattr(settings, name) for name in READING}
        return loading.load(dense, tokenizer=settings.tokenizer, task=task, **given).model, dense.name
    try:
        source, read = recorded(folder)
        given = {name: getattr(read, name) for name in READING}
        return loading.load(source, tokenizer=read.tokenizer, task=task, **given).model, source.name
    except (OSError, ValueError, InputError):
        return None


def recorded(folder: Path) -> tuple[Path, RunSettings]:
    """Return the checkpoint that a folder was made of, and how it was read, as the report of the folder says.

    Raises:
        InputError: There is no report that can be read.
        ValueError: A setting in the report cannot be used.
    """
    report = read_report(folder)
    settings = report.settings if isinstance(report, CompressReport) else {}
    read = RunSettings.model_validate({name: settings.get(name) for name in (*READING, "tokenizer")})
    return Path(report.checkpoint), read
