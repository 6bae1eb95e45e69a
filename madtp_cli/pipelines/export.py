"""madtp export: load a checkpoint, trace it, write one file, and check the outputs of the file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from madtp_cli import exporters, processes
from madtp_cli.checkpoint.atomic_write import check_output_file, write_file
from madtp_cli.config import PointSettings
from madtp_cli.evaluation.session import load_checkpoint
from madtp_cli.exporters import ExportFormat, _checking, _tracing
from madtp_cli.exporters._random_inputs import MIN_TEXT_TOKENS, random_inputs
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import Forecast
from madtp_cli.reporting.schema import ExportReport

#: The names of stages.
TRACING, WRITING, CHECKING = "Tracing", "Writing", "Checking"
#: Seconds to trace a layer norm and what belongs to it, and a block that prunes; bytes that are written per second.
TRACING_SECONDS, PRUNING_SECONDS, BYTES_PER_SECOND = 0.08, 1.2, 2e8
#: Forward passes of one sample that check a file.
CHECKING_PASSES = 30
#: Note for a model that generates text.
GENERATION_NOTE = (
    "The file contains one forward pass and no generation. To generate a text, run the file in a loop: pass the tokens "
    "so far, then append the most likely next token."
)


def export(
    source: Path,
    file: Path,
    settings: PointSettings,
    format_name: str | None = None,
    progress: ProgressReporter | None = None,
    *,
    overwrite: bool = False,
) -> ExportReport:
    """Write a checkpoint, dense or pruned, as one file that runs without madtp, and check the file.

    Args:
        source, file: The checkpoint; the output file, with the ending of the format.
        settings: How to read the checkpoint, and which point of its curve to set.
        format_name, progress, overwrite: As in `madtp_cli.export`.

    Raises:
        MadtpError: A subclass with its exit code. No file is written then.
    """
    processes.require_one("export")
    started, progress, file = time.monotonic(), Forecast.of(progress), Path(file)
    export_format = exporters.get_for(format_name := format_name or exporters.name_for(file), file)
    check_output_file(file, overwrite)
    loaded = load_checkpoint(source, settings, progress)
    written = _write(loaded.model.float(), export_format, file, overwrite, progress)
    return ExportReport(
        checkpoint=str(source),
        file=str(file),
        format=format_name,
        task=loaded.model.config.task,
        notes=[*loaded.notes, *_notes(loaded.model)],
        seconds=time.monotonic() - started,
        **written,
    )


def _write(
    model: Prunable, export_format: ExportFormat, file: Path, overwrite: bool, progress: ProgressReporter
) -> dict[str, Any]:
    """Trace, write and check a model; return the fields of the report that are about the written file."""
    progress.plan(planned_stages(model, export_format))
    progress.start(TRACING, 0)
    program = _tracing.trace(model)
    progress.finish()
    with write_file(file, overwrite) as new:
        progress.start(WRITING, 0)
        export_format.write(program, new)
        progress.finish()
        progress.start(CHECKING, 0)
        check = _checking.compare_outputs(model, export_format.runner(new))
        size_bytes = sum(part.stat().st_size for part in new.parent.iterdir())
        progress.finish()
    inputs, outputs = _tracing.input_and_output_shapes(program)
    return {"size_bytes": size_bytes, "inputs": inputs, "outputs": outputs, "check": check}


def planned_stages(model: Prunable, export_format: ExportFormat) -> list[PlannedStage]:
    """Return the stages after loading. Tracing tells how fast this machine is; the others are compared with it."""
    norms, pruning = sum(isinstance(module, nn.LayerNorm) for module in model.modules()), model.pruning
    pruned = [pruning and pruning.rule(tower, block) for tower, n in model.blocks.items() for block in range(n)]
    tracing = TRACING_SECONDS * norms + PRUNING_SECONDS * sum(map(bool, pruned))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    started = time.perf_counter()
    with torch.inference_mode():
        model(**random_inputs(model, samples=1, tokens=MIN_TEXT_TOKENS, seed=0))
    forward = time.perf_counter() - started
    return [
        PlannedStage(TRACING, tracing),
        PlannedStage(WRITING, export_format.WRITING_TIME * tracing + weights / BYTES_PER_SECOND),
        PlannedStage(CHECKING, export_format.CHECKING_TIME * tracing + CHECKING_PASSES * forward),
    ]


def _notes(model: Prunable) -> list[str]:
    """Return what a user of the file should know about it."""
    notes = [GENERATION_NOTE] if hasattr(model, "generate") else []
    if model.dtype != torch.float32:
        notes.append(f"The checkpoint's {str(model.dtype).removeprefix('torch.')} weights are written as float32.")
    return notes
