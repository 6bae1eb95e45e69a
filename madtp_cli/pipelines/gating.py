"""Apply the gates of a run to its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from madtp_cli import processes
from madtp_cli.checkpoint.atomic_write import check_output_file, write_file
from madtp_cli.config import flag
from madtp_cli.config.gates import GateSettings
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import baselines, gates
from madtp_cli.reporting.gate_parts import GatesPart
from madtp_cli.reporting.junit import junit
from madtp_cli.reporting.reading import read_report
from madtp_cli.reporting.schema import CompressReport, EvalReport

Report = TypeVar("Report", CompressReport, EvalReport)


def verdicts(report: baselines.Checked, settings: GateSettings) -> GatesPart:
    """Return the verdicts on all gates of the settings, also those that compare with the baseline.

    Raises:
        InputError: The report has no figure for a gate, or the baseline cannot be read or compared.
    """
    if settings.baseline is None:
        return gates.decide(report, settings)
    baseline = read_report(settings.baseline)
    differences = baselines.require_comparable(baselines.conditions(report), baseline, settings)
    part = gates.decide(report, settings, baselines.comparisons(report, baseline, settings))
    return part.model_copy(update={"differences": differences})


def with_gates(report: Report, settings: GateSettings) -> Report:
    """Return a report with the verdicts on the gates of the settings; without gates, if the settings have none."""
    return report.model_copy(update={"gates": verdicts(report, settings) if settings.has_gates() else None})


def require_possible(settings: GateSettings, conditions: Mapping[str, object]) -> None:
    """Check before a long run that its report will have the figures of the gates, and can be compared.

    Args:
        settings: The gates.
        conditions: What the figures depend on, see `baselines.conditions`.

    Raises:
        UsageError: A gate is about another task.
        InputError: The baseline cannot be read or compared.
        OutputError: The JUnit file cannot be written.
    """
    for name, (gate, _) in settings.requested_gates().items():
        if gate.task not in (None, task := conditions["task"]):
            raise UsageError(f"{flag(name)} is for the task {gate.task}, not for {task}.\nLeave it out.")
    require_files(settings)
    if settings.baseline is not None:
        baselines.require_comparable(conditions, read_report(settings.baseline), settings)


def require_pruned(settings: GateSettings, source: Path) -> None:
    """Refuse the gates that a dense checkpoint has no figure for.

    Raises:
        UsageError: There is such a gate.
    """
    for name, (gate, _) in settings.requested_gates().items():
        if gate.pruned_only:
            raise UsageError(f"{flag(name)} is for pruned checkpoints, but {source} is dense.\nLeave it out.")


def require_files(settings: GateSettings) -> None:
    """Check the files of the gates, which needs no checkpoint.

    Raises:
        InputError: The baseline cannot be read.
        OutputError: The JUnit file cannot be written.
    """
    if settings.baseline is not None:
        read_report(settings.baseline)
    if settings.junit is not None:
        check_output_file(settings.junit, overwrite=True)


def write_junit(part: GatesPart | None, settings: GateSettings, name: str, seconds: float) -> None:
    """Write the JUnit file of the settings, if they ask for one; of several processes the main one writes it.

    Args:
        part: The verdicts.
        settings: Have the path of the file.
        name: What was checked.
        seconds: Duration of the check.
    """
    if settings.junit is not None and part is not None and processes.is_main():
        with write_file(settings.junit, overwrite=True) as new:
            new.write_text(junit(part, name, seconds), encoding="utf-8")
