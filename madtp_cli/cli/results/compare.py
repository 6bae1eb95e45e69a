"""The result of `madtp compare`."""

from __future__ import annotations

from rich.console import Console

from madtp_cli.cli.formatting import count
from madtp_cli.cli.results import _shared
from madtp_cli.errors import printable
from madtp_cli.reporting import comparison_tables
from madtp_cli.reporting.comparison import CompareReport


def show(report: CompareReport, out: Console) -> None:
    """Print the table of methods at equal GFLOPs, and the names of the files."""
    training = f"{count(report.steps, 'fine-tuning step')} each" if report.steps else "without training"
    title = f"{report.metric}, {count(report.samples, f'{report.split} sample')} of {report.data}, {training}"
    table = _shared.table(
        title, "budget", "method", "GFLOPs", "share", "quality", "to dense", "to madtp", "ms/sample", ""
    )
    for row in report.rows:
        table.add_row(*comparison_tables.cells(row))
    out.print(table)
    units = {part.unit for row in report.rows for part in (row.to_dense, row.to_madtp) if part is not None}
    out.print(f"Differences: in {' or '.join(sorted(units)) or 'points'}, in brackets the paired 95 % interval.")
    for line in (comparison_tables.LEGEND, *comparison_tables.unreachable_lines(report)):
        out.print(printable(line))
    for note in _shared.note_lines(report.notes):
        out.print(note)
    out.print(f"Results in {report.output}: {', '.join(report.files)}")
