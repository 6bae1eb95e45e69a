"""The stages of an export, and how long they take. This needs no torch, so the time left is known from the start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from madtp_cli import exporters
from madtp_cli.checkpoint.outline import outline
from madtp_cli.exporters import ExportFormat
from madtp_cli.progress import LOADING, PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import CLOCK
from madtp_cli.progress.machine import slowness

#: The names of stages.
PREPARING, TRACING, WRITING, CHECKING = "Loading the exporter", "Tracing", "Writing", "Checking"
#: Seconds to import torch and transformers, and to read a small checkpoint.
IMPORTING_SECONDS, LOADING_SECONDS = 3.3, 0.25
#: Seconds to trace a layer norm and what belongs to it, and a block that prunes.
NORM_SECONDS, PRUNING_SECONDS = 0.07, 1.55
#: Tensors of a checkpoint for each layer norm; bytes that are read or written in a second.
TENSORS_PER_NORM, BYTES_PER_SECOND = 7, 2e8
#: Share of the time of writing that is left when all operations have been run: constants are folded, and the file is
#: written.
LAST_SHARE = 0.12
#: Forward passes of one sample that check a file.
CHECKING_PASSES = 30


def announce(progress: ProgressReporter, checkpoint: Path, file: Path, format_name: str | None) -> None:
    """Tell a reporter, before torch is imported, how long the import and all later stages take.

    Nothing is announced where the files of the checkpoint do not tell their size.

    Args:
        progress: Receives the times, in a stage in which torch will be imported.
        checkpoint, file, format_name: As in `madtp_cli.export`.
    """
    found = outline(checkpoint)
    if found is None or not found.tensors:
        return
    slower = slowness()
    export_format = exporters.get(format_name or exporters.name_for(file))
    norms = found.tensors / TENSORS_PER_NORM
    loading = PlannedStage(LOADING, LOADING_SECONDS * slower + found.bytes / BYTES_PER_SECOND, CLOCK)
    progress.plan([loading, *stages(export_format, norms, found.pruned_blocks, found.bytes, slower)])
    progress.expect(IMPORTING_SECONDS * slower)


def stages(
    export_format: ExportFormat, norms: float, pruned_blocks: int, weight_bytes: int, slower: float, passes: float = 0.0
) -> list[PlannedStage]:
    """Return the stages after loading. Tracing tells how fast this machine is; the later ones are compared with it.

    Args:
        export_format: The format of the file.
        norms: Number of layer norms.
        pruned_blocks: Number of blocks that prune tokens.
        weight_bytes: Size of the weights.
        slower: How many times longer than on the machine of the estimates Python code takes.
        passes: Seconds of the forward passes that check the file.
    """
    tracing = slower * (NORM_SECONDS * norms + PRUNING_SECONDS * pruned_blocks)
    return [
        PlannedStage(PREPARING, slower * export_format.PREPARING_SECONDS, CLOCK),
        PlannedStage(TRACING, tracing),
        PlannedStage(WRITING, writing_seconds(export_format, tracing, weight_bytes)),
        PlannedStage(CHECKING, export_format.CHECKING_TIME * tracing + passes),
    ]


def writing_seconds(export_format: ExportFormat, tracing: float, weight_bytes: int) -> float:
    """Return the seconds of writing a file, from the seconds of tracing the model and the size of its weights."""
    return export_format.WRITING_TIME * tracing + weight_bytes / BYTES_PER_SECOND


@dataclass
class WritingTime:
    """The time left while a file is written: first as planned, then more and more as the speed of the operations tells.

    Attributes:
        seconds: The planned seconds.
        progress: Receives the operations that have been run, and the time left.
        clock: Returns the time in seconds.
    """

    seconds: float
    progress: ProgressReporter
    clock: Callable[[], float] = time.perf_counter
    _started: float = field(init=False)
    _first: float | None = None

    def __post_init__(self) -> None:
        self._started = self.clock()

    def tell(self, done: int, total: int) -> None:
        """Tell the progress when `done` of `total` operations have been run; the first time, when none has."""
        now, share = self.clock(), done / total
        self._first = now if self._first is None else self._first
        left = planned = max(0.0, self.seconds - (now - self._started))
        if share:
            all_operations = (now - self._first) / share
            last = LAST_SHARE / (1 - LAST_SHARE) * all_operations
            left = share * (all_operations * (1 - share) + last) + (1 - share) * planned
        self.progress.advance(done)
        self.progress.expect(left)
