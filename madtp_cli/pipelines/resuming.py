"""Continue a run of `madtp compress` that was interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from madtp_cli import processes
from madtp_cli.checkpoint import state_folder
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.config import CompressSettings
from madtp_cli.errors import BudgetError, InputError, ResumeError
from madtp_cli.reporting.reading import REPORT, read_report
from madtp_cli.reporting.record import RecordPart
from madtp_cli.reporting.schema import CompressReport

#: Differences that a message lists.
MOST = 3


def begin(state: StateFolder, settings: CompressSettings, record: RecordPart) -> RecordPart:
    """Return the record of the run: that of the interrupted run if it continues, else `record`, which is written.

    Raises:
        ResumeError: The interrupted run computes something else, or its files are damaged.
    """
    return processes.from_main(lambda: _begin(state, settings, record))


def _begin(state: StateFolder, settings: CompressSettings, record: RecordPart) -> RecordPart:
    earlier = continued(state, settings, record)
    if earlier is None:
        state.clear()
        state.write_record(record.model_dump(mode="json"))
    return earlier or record


def continued(state: StateFolder, settings: CompressSettings, record: RecordPart) -> RecordPart | None:
    """Return the record of the interrupted run that `--resume` continues; None if there is none.

    Raises:
        ResumeError: The interrupted run computes something else, or its files are damaged.
    """
    if not (settings.resume and state_folder.has_state(state.output)):
        return None
    try:
        earlier = RecordPart.model_validate(state.read_record())
    except ValidationError as error:
        raise state.damaged(state_folder.RECORD) from error
    _require_same(record, earlier, state.output, "the interrupted run", "discard it with --overwrite and no --resume")
    return earlier


def finished(output: Path, settings: CompressSettings, record: RecordPart) -> CompressReport | None:
    """Return the report in the output folder if `--resume` finds the result of the same run there; else None.

    Raises:
        ResumeError: The folder has the result of another run, and may not be replaced.
    """
    if not settings.resume or not (output / REPORT).is_file():
        return None
    try:
        report = read_report(output)
    except InputError:
        report = None
    if isinstance(report, CompressReport) and not record.differences(report.record):
        return report
    if not settings.overwrite:
        earlier = report.record if isinstance(report, CompressReport) else RecordPart()
        _require_same(record, earlier, output, "the run that wrote it", "choose another output")
    return None


def _require_same(record: RecordPart, earlier: RecordPart, output: Path, run: str, advice: str) -> None:
    if found := record.differences(earlier):
        more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
        raise ResumeError(
            f"{output} cannot be resumed, because {run} is another one: {', '.join(found[:MOST])}{more}.\n"
            f"Give what that run had, or {advice}."
        )


@contextlib.contextmanager
def noted(state: StateFolder) -> Iterator[None]:
    """Add a note to every error of a run that can continue. A run that missed its budget would miss it again."""
    try:
        yield
    except BudgetError:
        state.clear()
        raise
    except BaseException as error:
        if state_folder.has_state(state.output) and not isinstance(error, ResumeError):
            error.add_note(f"The same command with --resume continues from the state in {state.path}.")
        raise
