"""madtp report: one HTML page about one or several folders that `madtp compress` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from madtp_cli import processes
from madtp_cli.checkpoint import own_files
from madtp_cli.config import RunSettings
from madtp_cli.errors import InputError, MadtpError
from madtp_cli.evaluation import sample_files
from madtp_cli.pipelines import report_samples
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.html import report_page
from madtp_cli.reporting.html.report_page import Gallery
from madtp_cli.reporting.plots import Run
from madtp_cli.reporting.reading import read_report
from madtp_cli.reporting.schema import CompressReport

#: Name of the page in a folder.
PAGE = "report.html"
#: Samples with pictures, of all folders together.
PICTURES = 16


def report(
    folders: Sequence[Path],
    output: Path | None = None,
    settings: RunSettings | None = None,
    progress: ProgressReporter | None = None,
    *,
    pictures: int = PICTURES,
    overwrite: bool = False,
) -> Path:
    """Write the page.

    Args:
        folders: Folders that `madtp compress` wrote, at least one.
        output: The file, which is returned; `report.html` in the first folder if None.
        settings: Where the data are now, and the device; the other settings are those of the folder.
        progress: Receives the progress.
        pictures: Samples with pictures, of all folders together; 0 runs no model.
        overwrite: Replace a file that madtp did not write.

    Raises:
        MadtpError: A subclass with its exit code.
    """
    processes.require_one("report")
    settings, progress = settings or RunSettings(), progress or ProgressReporter()
    own_files.check(file := output or folders[0] / PAGE, overwrite)
    read_folders = [read(folder) for folder in folders]
    runs, notes = [run for run, _ in read_folders], [note for _, missing in read_folders for note in missing]
    galleries, each = list[Gallery](), pictures // len(runs)
    for folder, run in zip(folders, runs, strict=True):
        try:
            galleries += report_samples.galleries(folder, run, settings, progress, each, len(runs) > 1)
        except MadtpError as error:
            if settings.data is not None:
                raise
            notes.append(f"There are no pictures of {run.name}: {' '.join(str(error).split())}")
            progress.message(notes[-1])
    progress.start("Drawing the page", 0)
    own_files.write_text(file, report_page.report_page(runs, galleries, notes), overwrite)
    progress.finish()
    return file


def read(folder: Path) -> tuple[Run, list[str]]:
    """Return the run of a folder, and notes about what it lacks.

    Raises:
        InputError: The folder has no report of madtp compress that can be read.
        DataError: Its records of samples cannot be read.
    """
    samples = folder / sample_files.FILE_NAME
    found = read_report(folder)
    if not isinstance(found, CompressReport):
        raise InputError(f"{folder} has no report of madtp compress.\nGive a folder that madtp compress wrote.")
    name = folder.resolve().name
    if not samples.is_file():
        return Run(name, found), [f"{name} has no {samples.name}, so its samples are not shown."]
    return Run(name, found, sample_files.read(samples)), []
