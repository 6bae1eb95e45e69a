"""madtp export: load a checkpoint, trace it, write one file, and check the outputs of the file."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from madtp_cli import exporters, processes
from madtp_cli.checkpoint.atomic_write import check_output_file, write_file
from madtp_cli.config import PointSettings
from madtp_cli.evaluation.session import load_checkpoint
from madtp_cli.exporters import ExportFormat, _checking, _counting, _tracing
from madtp_cli.exporters._random_inputs import MIN_TEXT_TOKENS, random_inputs
from madtp_cli.models.prunable import Prunable
from madtp_cli.pipelines import export_times
from madtp_cli.pipelines.export_times import CHECKING, CHECKING_PASSES, PREPARING, TRACING, WRITING, WritingTime
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import Forecast
from madtp_cli.progress.machine import slowness
from madtp_cli.reporting.schema import ExportReport

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
    progress.start(PREPARING, 0)
    _load_exporter(export_format)
    progress.finish()
    progress.start(TRACING, 0)
    started = time.perf_counter()
    program = _tracing.trace(model)
    writing_seconds = export_times.writing_seconds(export_format, time.perf_counter() - started, _weight_bytes(model))
    progress.finish()
    with write_file(file, overwrite) as new:
        _write_file(program, export_format, new, progress, writing_seconds)
        progress.start(CHECKING, 0)
        check = _checking.compare_outputs(model, export_format.runner(new))
        size_bytes = sum(part.stat().st_size for part in new.parent.iterdir())
        progress.finish()
    inputs, outputs = _tracing.input_and_output_shapes(program)
    return {"size_bytes": size_bytes, "inputs": inputs, "outputs": outputs, "check": check}


def _write_file(
    program: ExportedProgram, export_format: ExportFormat, file: Path, progress: ProgressReporter, seconds: float
) -> None:
    """Write a traced model, in about `seconds`, and report the progress where the format runs the operations."""
    if passes := export_format.WRITING_PASSES:
        progress.start(WRITING, _counting.STEPS)
        time_left = WritingTime(seconds, progress)
        with _counting.CountedOperations(program, passes, lambda done: time_left.tell(done, _counting.STEPS)):
            export_format.write(program, file)
    else:
        progress.start(WRITING, 0)
        export_format.write(program, file)
    progress.finish()


def _weight_bytes(model: Prunable) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _load_exporter(export_format: ExportFormat) -> None:
    """Load the packages that tracing and writing need, by exporting a tiny model.

    How long that takes does not depend on the model, so it would disturb the estimate from the time of tracing.
    """
    with tempfile.TemporaryDirectory() as folder:
        export_format.write(_tracing.trace_tiny_model(), Path(folder, f"tiny{export_format.SUFFIX}"))


def planned_stages(model: Prunable, export_format: ExportFormat) -> list[PlannedStage]:
    """Return the stages after loading."""
    norms, pruning = sum(isinstance(module, nn.LayerNorm) for module in model.modules()), model.pruning
    pruned = [pruning and pruning.rule(tower, block) for tower, n in model.blocks.items() for block in range(n)]
    checking = CHECKING_PASSES * _forward_seconds(model)
    return export_times.stages(export_format, norms, sum(map(bool, pruned)), _weight_bytes(model), slowness(), checking)


@torch.inference_mode()
def _forward_seconds(model: Prunable) -> float:
    """Return the seconds of a forward pass of one sample. The first pass of a process takes longer."""
    inputs, seconds = random_inputs(model, samples=1, tokens=MIN_TEXT_TOKENS, seed=0), 0.0
    for _ in range(2):
        started = time.perf_counter()
        model(**inputs)
        seconds = time.perf_counter() - started
    return seconds


def _notes(model: Prunable) -> list[str]:
    """Return what a user of the file should know about it."""
    notes = [GENERATION_NOTE] if hasattr(model, "generate") else []
    if model.dtype != torch.float32:
        notes.append(f"The checkpoint's {str(model.dtype).removeprefix('torch.')} weights are written as float32.")
    return notes
