"""Export formats: one file per value of `madtp export --format`.

An exported file runs without this package. Each module of this folder writes one file format, and must define what
`ExportFormat` describes:

    SUFFIX                  ending of its files, such as ".onnx"
    PREPARING_SECONDS       seconds of tracing and writing the first, tiny model, to estimate the time
    WRITING_TIME            duration of `write`, as a multiple of the duration of tracing
    WRITING_PASSES          how many times `write` runs each operation of the graph, as a mean; 0 if it runs none
    CHECKING_TIME           duration of reading the file back and running it, for a small model, as such a multiple
    require()               raises a UsageError if a needed package is not installed
    write(program, file)    writes the traced model
    runner(file)            reads the file back and returns a function that runs it

To add a format, add one file here; no other file changes. Its name with "-" instead of "_" is the value of
`--format`. `pipelines/export.py` traces the model, calls the format, and checks the outputs of the written file.

Files whose names begin with an underscore are not formats: `_tracing.py` turns a model into a graph, `_counting.py`
tells how far its conversion is, `_checking.py` compares the outputs of a file with those of the model.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from madtp_cli.config.choices import did_you_mean
from madtp_cli.errors import UsageError

if TYPE_CHECKING:  # the numbers of a format are needed before torch is imported
    from torch import Tensor
    from torch.export import ExportedProgram


class ExportFormat(Protocol):
    """What a module of this package defines."""

    SUFFIX: str
    PREPARING_SECONDS: float
    WRITING_TIME: float
    WRITING_PASSES: float
    CHECKING_TIME: float

    def require(self) -> None:
        """Raise a UsageError with the command that installs the missing packages, if any is missing."""

    def write(self, program: ExportedProgram, file: Path) -> None:
        """Write a traced model to a file."""

    def runner(self, file: Path) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
        """Read a file and return a function that runs it on the CPU: from inputs by name to outputs by name."""


def names() -> list[str]:
    """Return the values of --format, sorted: the names of the files of this folder."""
    files = (module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return sorted(name.replace("_", "-") for name in files)


def get(name: str) -> ExportFormat:
    """Return a format by its name.

    Raises:
        UsageError: There is no such format.
    """
    if name not in names():
        raise UsageError(
            f"There is no export format {name!r}.{did_you_mean(name, names())}\nChoose one of: {', '.join(names())}."
        )
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def name_for(file: Path) -> str:
    """Return the name of the format for a file name, or the first format if no ending matches.

    >>> name_for(Path("blip.pt2")), name_for(Path("blip"))
    ('torch-export', 'onnx')
    """
    return next((name for name in names() if file.suffix == get(name).SUFFIX), names()[0])


def get_for(name: str, file: Path) -> ExportFormat:
    """Return a format that can be written on this machine, to a file with this name.

    Raises:
        UsageError: There is no such format, the file name has another ending, or a package is missing.
    """
    export_format = get(name)
    if file.suffix != export_format.SUFFIX:
        raise UsageError(
            f"The file {file} does not end with {export_format.SUFFIX}, as files of --format {name} do.\n"
            f"Write to {file.with_suffix(export_format.SUFFIX)}, or choose another format: {', '.join(names())}."
        )
    export_format.require()
    return export_format
