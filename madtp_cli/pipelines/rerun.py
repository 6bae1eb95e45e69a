"""madtp rerun: repeat the run of a report, and compare the weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from madtp_cli.checkpoint import hashing
from madtp_cli.checkpoint.locating import locate
from madtp_cli.config import CompressSettings, resolve
from madtp_cli.config.effects import WITHOUT_EFFECT
from madtp_cli.errors import CheckError, InputError
from madtp_cli.pipelines.compress import compress
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.reading import read_report
from madtp_cli.reporting.schema import CompressReport, RerunReport

#: Added to the name of the output folder.
SUFFIX = "-rerun"


def rerun(
    report_file: Path,
    progress: ProgressReporter | None = None,
    *,
    output: Path | None = None,
    checkpoint: Path | None = None,
    data: Path | None = None,
    command_line: Sequence[str] = (),
) -> RerunReport:
    """Repeat the run of `madtp compress` that wrote a report.

    Args:
        report_file, progress: The output folder, or its file report.json; receives the progress.
        output: The folder to write. Default: the name of the first output and "-rerun", in the working directory.
        checkpoint: The checkpoint, if it was moved.
        data: The data, if they were moved.
        command_line: The words of the command that repeats the run, for the record of the new folder.

    Raises:
        InputError: The file is no such report, or the checkpoint is another one.
        MadtpError: As in `compress`.
    """
    started, earlier = time.monotonic(), _recorded(report_file)
    source, record = checkpoint or Path(earlier.checkpoint), earlier.record
    if hashing.sha256(locate(source)) != record.inputs.get("checkpoint"):
        raise InputError(f"{source} is not the checkpoint of {report_file}: its content is another one.")
    given = {name: part.value for name, part in record.settings.items() if name not in WITHOUT_EFFECT}
    given["output"] = output or Path(Path(earlier.output).resolve().name + SUFFIX)
    if data is not None:
        given["data"] = data
    settings = resolve(given, None, {}, CompressSettings, lambda name: f"{report_file} ({name})")
    settings.command_line.extend(command_line)
    with _threads(record.threads):
        later = compress(source, settings, progress)
    return _report(report_file, earlier, later, time.monotonic() - started)


def _report(report_file: Path, earlier: CompressReport, later: CompressReport, seconds: float) -> RerunReport:
    expected, found = earlier.record.outputs, later.record.outputs
    return RerunReport(
        report=str(report_file),
        output=later.output,
        expected=expected,
        found=found,
        same=found == expected,
        differences=_differences(earlier, later),
        seconds=seconds,
    )


def _differences(earlier: CompressReport, later: CompressReport) -> list[str]:
    """Return what differed between two runs of the same settings."""
    differences = list(later.record.differences(earlier.record))
    if not earlier.record.reproducible:
        differences += earlier.record.conditions
    before, now = earlier.environment.processor, later.environment.processor
    return differences + ([f"the CPU was {before} and is {now}"] if before != now else [])


def _recorded(path: Path) -> CompressReport:
    """Return the report of a run that can be repeated."""
    report = read_report(path)
    if not isinstance(report, CompressReport) or not (report.record.settings and report.record.outputs):
        raise InputError(f"{path} has no record of a run.\nGive the folder of a madtp compress of this version.")
    return report


def require_same(report: RerunReport) -> None:
    """Raise CheckError if the repeated run gave other weights."""
    if not report.same:
        raise CheckError(f"The weights in {report.output} differ from those of {report.report}.")


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute with a number of threads; rounding depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, number))
    try:
        yield
    finally:
        torch.set_num_threads(before)
