"""What a command does after its report if the run has gates: print them, add them to the pipeline's page, and fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from madtp_cli.cli.results import check
from madtp_cli.errors import CheckError, OutputError
from madtp_cli.reporting import gate_summary
from madtp_cli.reporting.schema import GatesPart

#: GitHub Actions names in it the file with the Markdown that it shows on the page of a run.
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


def finish(ctx: typer.Context, report: Any) -> None:
    """Publish the gates of a report, if it has any.

    Raises:
        CheckError: A gate failed.
        OutputError: The summary cannot be written.
    """
    part: GatesPart | None = getattr(report, "gates", None)
    if part is None:
        return
    if not ctx.params["as_json"]:
        check.show_gates(part, ctx.obj.out)
    if file := os.environ.get(SUMMARY_VARIABLE):
        _append(Path(file), gate_summary.markdown(part, getattr(report, "output", report.checkpoint)))
    if not part.passed:
        raise CheckError(
            f"{part.sentence()}\nSee the verdicts in the table, or `gates` and `failure_class` in the --json document."
        )


def _append(file: Path, text: str) -> None:
    try:
        with file.open("a", encoding="utf-8") as summary:
            summary.write(text)
    except OSError as error:
        raise OutputError(
            f"{SUMMARY_VARIABLE}: {file} cannot be written: {error.strerror or error}.\nUnset the variable."
        ) from error
