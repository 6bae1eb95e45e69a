"""The file format of torch.export (.pt2).

Any torch version that supports the file runs it with `torch.export.load(file).module()(**inputs)`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from madtp_cli.exporters._tracing import without_exporter_warnings

SUFFIX = ".pt2"
WRITING_TIME, CHECKING_TIME = 0.3, 0.65


def require() -> None:
    """Do nothing: only torch is needed."""


def write(program: ExportedProgram, file: Path) -> None:
    """Write the weights and the graph to one archive."""
    with without_exporter_warnings():
        torch.export.save(program, file)


def runner(file: Path) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Read a file and return a function that runs it."""
    with without_exporter_warnings():
        module = torch.export.load(file).module()
    return lambda inputs: module(**inputs)
