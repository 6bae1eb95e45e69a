"""ONNX (.onnx), for onnxruntime and other runtimes. Weights above 1.5 GB are written to a second file, <file>.data."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from madtp_cli.errors import UsageError, install_command

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram

SUFFIX = ".onnx"
PREPARING_SECONDS, WRITING_TIME, WRITING_PASSES, CHECKING_TIME = 1.8, 2.6, 3.05, 0.07
#: Packages that are needed besides torch.
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
#: Largest weights, in bytes, that are written into the .onnx file; the format allows 2 GiB.
MAX_EMBEDDED_BYTES = 1_500_000_000


def require() -> None:
    """Raise a UsageError if an optional package is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--format onnx needs {' and '.join(missing)}.\nInstall: {install_command(*missing)}")


def write(program: ExportedProgram, file: Path) -> None:
    """Convert a traced model to ONNX and write it."""
    import torch

    from madtp_cli.exporters._tracing import output_names, size_names, without_exporter_warnings

    with without_exporter_warnings():
        onnx_program = torch.onnx.export(
            program, dynamo=True, verbose=False, output_names=output_names(program), optimize=False
        )
        if onnx_program is None:
            raise TypeError("torch.onnx.export returned None")
        _simplify(onnx_program.model)
        _rename_sizes(onnx_program.model, size_names(program))
        weights = sum(value.nbytes for value in program.state_dict.values())
        onnx_program.save(file, external_data=weights > MAX_EMBEDDED_BYTES)


def _simplify(model: Any) -> None:
    """Fold constants, and remove repeated weights and unused nodes.

    torch's own optimisation also tries many rewrite rules on every node. That took half of the export, and runtimes
    such as onnxruntime rewrite the graph again when they load it: the written file is no faster.
    """
    from onnx_ir.passes import Sequential, common
    from onnxscript import optimizer

    optimizer.inline(model)
    optimizer.fold_constants(model)
    Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


def _rename_sizes(model: Any, names: dict[str, str]) -> None:
    """Replace the symbols of torch in all shapes, such as "s43", by names, such as "samples"."""
    values = [*model.graph.inputs, *model.graph.outputs]
    values += [value for node in model.graph.all_nodes() for value in node.outputs]
    for value in values:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and size.value:
                value.shape[axis] = re.sub(r"\w+", lambda symbol: names.get(symbol[0], symbol[0]), str(size.value))


def runner(file: Path) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Read a file and return a function that runs it in onnxruntime on the CPU."""
    import onnxruntime
    import torch

    onnxruntime.set_default_logger_severity(3)  # errors only; its warnings are about its own optimisations
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = session.run(names, {name: value.numpy() for name, value in inputs.items()})
        return dict(zip(names, map(torch.from_numpy, outputs), strict=True))

    return run
