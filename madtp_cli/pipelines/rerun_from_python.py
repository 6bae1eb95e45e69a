"""`madtp_cli.rerun`, for callers from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from madtp_cli.pipelines.python_wording import with_python_names

if TYPE_CHECKING:
    from madtp_cli.progress import ProgressReporter
    from madtp_cli.reporting.schema import RerunReport


@with_python_names
def rerun(
    report: str | Path,
    *,
    output: str | Path | None = None,
    checkpoint: str | Path | None = None,
    data: str | Path | None = None,
    progress: bool | ProgressReporter = False,
) -> RerunReport:
    """Repeat the run of a report of `compress`, and tell whether the weights are the same, like `madtp rerun`.

    Args:
        report: The file report.json in the folder of the first run.
        output: The folder to write. Default: the name of the first one and "-rerun", in the working directory.
        checkpoint, data: The inputs, if they are not where the first run found them.
        progress: True shows progress bars; a reporter receives the progress.

    Raises:
        MadtpError: A subclass of it. Another checkpoint is an InputError.
    """
    from madtp_cli.pipelines import keyword_arguments, rerun

    output, checkpoint, data = (None if path is None else Path(path) for path in (output, checkpoint, data))
    reporter = keyword_arguments.to_reporter(progress)
    return rerun.rerun(Path(report), reporter, output=output, checkpoint=checkpoint, data=data)
