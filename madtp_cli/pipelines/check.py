"""madtp check: compare the figures of a report, or of a measurement, with bounds."""

from __future__ import annotations

import time
from pathlib import Path

from madtp_cli.config import EvalSettings, flag
from madtp_cli.config.gates import GateSettings
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import baselines
from madtp_cli.pipelines import gating
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.gate_parts import GatesPart
from madtp_cli.reporting.reading import read_report, report_file
from madtp_cli.reporting.schema import CheckReport

#: The source of the figures if they were measured and not read.
MEASURED = "measured"


def check(source: Path, settings: EvalSettings, progress: ProgressReporter | None = None) -> CheckReport:
    """Decide gates on a report, or with data on a measurement of a checkpoint.

    Args:
        source: A folder of `madtp compress`, or a file with a --json document; with data a checkpoint.
        settings: The gates; with data also how to measure.
        progress: Receives the progress.

    Raises:
        MadtpError: A subclass with its exit code. A gate that fails is no error: the report tells.
    """
    if not settings.has_gates():
        raise UsageError("There is no gate to check.\nGive at least one, such as --max-drop 1, or --baseline.")
    if _is_given(settings, "data"):
        return _measured(source, settings, progress)
    _require_no_measurement(settings)
    started, report = time.monotonic(), read_report(source)
    gating.require_possible(settings, baselines.conditions(report))
    part = gating.verdicts(report, settings)
    gating.write_junit(part, settings, str(source), time.monotonic() - started)
    return _report(source, str(report_file(source)), report.task, report.data, part, report.notes)


def _measured(source: Path, settings: EvalSettings, progress: ProgressReporter | None) -> CheckReport:
    from madtp_cli.pipelines.evaluate import evaluate  # loads torch, which a report does not need

    report = evaluate(source, settings, progress)
    if report.gates is None:
        raise ValueError("a report with gates has no verdicts")
    return _report(source, MEASURED, report.task, report.data, report.gates, report.notes)


def _require_no_measurement(settings: EvalSettings) -> None:
    """Raise UsageError if a setting of a measurement was given without data: it would have no effect.

    Variables and config files may have settings for other commands.
    """
    for name in EvalSettings.model_fields.keys() - GateSettings.model_fields.keys():
        if _is_given(settings, name):
            raise UsageError(
                f"{settings.origins[name]} has no effect on a report.\nAdd --data to measure now, or leave it out."
            )


def _is_given(settings: EvalSettings, name: str) -> bool:
    """Return whether a setting was given to this command, and not to all commands by a variable or a file."""
    return settings.origins.get(name) in (flag(name), name)


def _report(source: Path, origin: str, task: str, data: str, part: GatesPart, notes: list[str]) -> CheckReport:
    return CheckReport(
        checkpoint=str(source),
        source=origin,
        task=task,
        data=data,
        passed=part.passed,
        failure_class=part.failure_class,
        gates=part,
        notes=notes,
    )
