"""ONNX, for onnxruntime and whatever else reads it; weights of more than 1.5 GB lie beside it in <file>.data."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from madtp_cli.errors import UsageError
from madtp_cli.exporters._tracing import free_names, output_names, quiet

SUFFIX = ".onnx"
NEEDS = ("onnx", "onnxruntime", "onnxscript")
#: Bytes of weights in one file; its format ends at 2 GiB.
LARGEST = 1_500_000_000


def require() -> None:
    """UsageError if the optional packages are missing."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--format onnx needs {' and '.join(missing)}.\nInstall: pip install 'madtp[export]'")


def write(program: ExportedProgram, file: Path) -> None:
    """Translate and write a traced model."""
    with quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False, output_names=output_names(program))
        if made is None:
            raise TypeError("torch.onnx.export gave nothing")
        _name_sizes(made.model, free_names(program))
        weights = sum(value.nbytes for value in program.state_dict.values())
        made.save(file, external_data=weights > LARGEST)


def _name_sizes(model: Any, names: dict[str, str]) -> None:
    """Say "samples" where a shape says "s43"."""
    values = [*model.graph.inputs, *model.graph.outputs]
    values += [value for node in model.graph.all_nodes() for value in node.outputs]
    for value in values:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value:
                value.shape[axis] = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), str(size.value))


def runner(file: Path) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """The file in onnxruntime on the CPU."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors; its warnings are about its own optimisations
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        return dict(zip(names, map(torch.from_numpy, found), strict=True))

    return run
