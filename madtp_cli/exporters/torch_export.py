"""torch.export's own file, .pt2: `torch.export.load(file).module()(**inputs)` in any torch that reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from madtp_cli.exporters._tracing import quiet

SUFFIX = ".pt2"


def require() -> None:
    """Nothing but torch."""


def write(program: ExportedProgram, file: Path) -> None:
    """Weights and graph in one archive."""
    with quiet():
        torch.export.save(program, file)


def runner(file: Path) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The file, read back."""
    with quiet():
        module = torch.export.load(file).module()
    return lambda inputs: module(**inputs)
