"""The file format of torch.export (.pt2).

Any torch version that supports the file runs it with `torch.export.load(file).module()(**inputs)`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

SUFFIX = ".pt2"
PREPARING_SECONDS, WRITING_TIME, WRITING_PASSES, CHECKING_TIME = 0.5, 0.27, 0, 0.75


def require() -> None:
    """Do nothing: only torch is needed."""


def write(program: ExportedProgram, file: Path) -> None:
    """Write the weights and the graph to one archive."""
    import torch

    from madtp_cli.exporters._tracing import without_exporter_warnings

    with without_exporter_warnings():
        torch.export.save(program, file)


def runner(file: Path) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Read a file and return a function that runs it."""
    import torch

    from madtp_cli.exporters._tracing import without_exporter_warnings

    with without_exporter_warnings():
        module = torch.export.load(file).module()
    return lambda inputs: module(**inputs)
