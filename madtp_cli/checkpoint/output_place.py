"""Whether a run may write its output folder. This needs no torch, so a wrong output fails at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from madtp_cli.checkpoint import state_folder
from madtp_cli.checkpoint.atomic_write import check_output_folder
from madtp_cli.errors import OutputError
from madtp_cli.reporting.reading import REPORT


def check(output: Path, inputs: Iterable[Path | None], *, overwrite: bool, resume: bool) -> None:
    """Check before a run that its result can be saved, and that nothing is lost by it.

    Args:
        output: The output folder.
        inputs: The paths that the run reads; None and names that are no paths are ignored.
        overwrite: Allow to replace the folder, if madtp wrote it, and to discard the state of an interrupted run.
        resume: The run continues an interrupted one, and may find its result.

    Raises:
        OutputError: The folder would replace an input, it cannot be written, or it must not be replaced.
    """
    for path in inputs:
        if path is not None and path.exists() and _is_inside(path.resolve(), output.resolve()):
            raise OutputError(f"The input {path} is in the output folder {output}.\nChoose another output.")
    if resume and (output / REPORT).is_file():
        return  # the run compares the report with its own settings
    check_output_folder(output, overwrite)
    if state_folder.has_state(output) and not (resume or overwrite):
        raise OutputError(
            f"{state_folder.path_for(output)} has the state of an interrupted run.\n"
            "Continue it with --resume, or discard it with --overwrite."
        )


def _is_inside(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents
