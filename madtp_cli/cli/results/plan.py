"""The plan of --dry-run."""

from __future__ import annotations

from rich.console import Console

from madtp_cli.cli.formatting import count, duration
from madtp_cli.cli.results import _shared
from madtp_cli.errors import printable
from madtp_cli.reporting.plan import PlanReport


def show(report: PlanReport, out: Console) -> None:
    """Print the stages with their times, what the run needs, and that nothing was written."""
    table = _shared.table(printable(f"Plan of madtp {report.planned} {report.checkpoint}"), "stage", "about")
    for stage in report.stages:
        table.add_row(stage.name, duration(stage.seconds))
    table.add_row("all", duration(report.seconds), style="bold")
    out.print(table)
    if report.data is not None:
        samples = ", ".join(count(number, f"{split} sample") for split, number in report.samples.items())
        out.print(printable(f"Task {report.task}, {samples} of {report.data}."))
    if report.gflops is not None:
        out.print(f"Budget: {report.gflops:.4g} GFLOPs per sample.")
    out.print(f"Memory: about {report.memory_bytes / 1e6:,.0f} MB, and Python with its libraries.")
    if report.output is not None:
        free = "" if report.free_disk_bytes is None else f" of {report.free_disk_bytes / 1e6:,.0f} MB that are free"
        out.print(printable(f"Disk: about {report.disk_bytes / 1e6:,.1f} MB{free}, in {report.output}."))
    for text in _shared.note_lines(report.notes):
        out.print(text)
    out.print("Nothing was written (--dry-run).")
