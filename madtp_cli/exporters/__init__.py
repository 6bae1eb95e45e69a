"""Files that run without this package: one file format a file with what `Format` names, chosen by --format.

What is written is checked before it stays: the file runs, and its answers are the model's.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.export import ExportedProgram

from madtp_cli.checkpoint import load
from madtp_cli.checkpoint.atomic_write import check_file, write_file
from madtp_cli.errors import UsageError
from madtp_cli.exporters import _checking, _tracing
from madtp_cli.exporters._checking import Checked
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter

#: Said of a model that writes: a graph has no search in it.
LOOPS = (
    "The file has the forward alone. To write a text, give it the tokens so far and append the likeliest, in a loop."
)


class Format(Protocol):
    """A module of this package."""

    #: What its files' names end with.
    SUFFIX: str

    def require(self) -> None:
        """UsageError with the command that installs what is missing, if anything is."""

    def write(self, program: ExportedProgram, file: Path) -> None:
        """Write a traced model."""

    def runner(self, file: Path) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        """The file, read back: outputs by name from inputs by name, on the CPU."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    `size` in bytes, with what lies beside the file; `inputs` and `outputs` give each tensor's shape, a name where the
    size is free; `checked` says what the comparison measured.
    """

    file: str
    format: str
    task: str
    size: int
    inputs: dict[str, list[int | str]]
    outputs: dict[str, list[int | str]]
    checked: Checked
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def names() -> list[str]:
    """Names for --format: the files of this folder."""
    files = (module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return sorted(name.replace("_", "-") for name in files)


def get(name: str) -> Format:
    """The format of that name; UsageError lists those there are."""
    if name not in names():
        raise UsageError(f"There is no export format {name!r}. Choose one of: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def suiting(file: Path) -> str:
    """The format whose files' names end as this one, or else the first of `names()`.

    >>> suiting(Path("blip.pt2")), suiting(Path("blip"))
    ('torch-export', 'onnx')
    """
    return next((name for name in names() if file.suffix == get(name).SUFFIX), names()[0])


def export(
    source: Path,
    file: Path,
    name: str | None = None,
    progress: ProgressReporter | None = None,
    *,
    overwrite: bool = False,
    **told: Any,
) -> Exported:
    """Write a checkpoint, dense or pruned, as one file that needs no madtp, and check it.

    Args:
        source: Checkpoint file or folder.
        file: Where to; its name ends as the format's files do.
        name: One of `names()`; unless told, what the file's name ends as.
        listener: Hears of the progress.
        overwrite: Replace the file.
        told: What else `checkpoint.load` asks for.

    Raises:
        MadtpError: One of its kinds, each with its exit code; nothing is written then.
    """
    started, progress, file = time.monotonic(), progress or ProgressReporter(), Path(file)
    name = name or suiting(file)
    chosen = _fitting(name, file)
    check_file(file, overwrite)
    model = load.load(source, **told)[0]
    notes = _notes(model)
    model = model.float()
    progress.start("Tracing, writing, checking", 3)
    program = _tracing.traced(model)
    progress.advance(1)
    with write_file(file, overwrite) as new:
        chosen.write(program, new)
        progress.advance(2)
        checked = _checking.check(model, chosen.runner(new))
        size = sum(part.stat().st_size for part in new.parent.iterdir())
    progress.advance(3)
    progress.finish()
    inputs, outputs = _tracing.shapes(program)
    return Exported(
        str(file), name, model.config.task, size, inputs, outputs, checked, notes, time.monotonic() - started
    )


def _notes(model: Prunable) -> list[str]:
    """What a user of the file should know about it."""
    notes = [LOOPS] if hasattr(model, "generate") else []
    if model.dtype != torch.float32:
        notes.append(f"The checkpoint's {str(model.dtype).removeprefix('torch.')} weights are written as float32.")
    return notes


def _fitting(name: str, file: Path) -> Format:
    """The format, if it can be written here and to a file of this name."""
    chosen = get(name)
    if file.suffix != chosen.SUFFIX:
        raise UsageError(
            f"{file} is no name for --format {name}, whose files end with {chosen.SUFFIX}.\n"
            f"Write to {file.with_suffix(chosen.SUFFIX)}, or choose another format: {', '.join(names())}."
        )
    chosen.require()
    return chosen
