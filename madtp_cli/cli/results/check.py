"""The result of `madtp check`, and the gates of other commands."""

from __future__ import annotations

from rich.console import Console

from madtp_cli.cli.results import _shared
from madtp_cli.errors import printable
from madtp_cli.reporting import gate_summary
from madtp_cli.reporting.schema import CheckReport, GatesPart


def show(report: CheckReport, out: Console) -> None:
    """Print where the figures are from."""
    origin = f"measured on {report.data}" if report.source == "measured" else f"of {report.source}"
    out.print(printable(f"{report.checkpoint}: figures {origin}"))


def show_gates(part: GatesPart, out: Console) -> None:
    """Print the table of the gates and how they were decided."""
    table = _shared.table("", "gate", "figure", "bound", "verdict")
    for gate in part.gates:
        table.add_row(gate.figure, gate_summary.value(gate), gate_summary.allowed(gate), gate_summary.verdict(gate))
    out.print(table)
    for text in part.differences:
        out.print(printable(f"Differs from the baseline: {text}"))
    out.print(gate_summary.interval_note(part))
