"""The result of `madtp eval`."""

from __future__ import annotations

from rich.console import Console

from madtp_cli.cli.formatting import count
from madtp_cli.cli.results import _shared
from madtp_cli.reporting.schema import EvalReport


def show(report: EvalReport, out: Console) -> None:
    """Print the quality with its interval, and the cost."""
    quality, interval = report.quality, report.quality.interval95
    out.print(f"{report.checkpoint}: {count(quality.samples, f'{quality.split} sample')} of {report.data}")
    out.print(
        f"{quality.metric}: {quality.value:.2f}{' %' if quality.unit == 'percent' else ''} "
        f"(95 % interval {interval.low:.2f} to {interval.high:.2f})"
    )
    if quality.parts:
        out.print(", ".join(f"{name}: {value:.2f} %" for name, value in quality.parts.items()))
    out.print(_shared.gflops_line(report.gflops))
    lines = (
        *_shared.budget_lines(report.set_budget),
        *_shared.generation_lines(report.generation),
        *_shared.index_lines(report.index),
    )
    for text in (*lines, *_shared.note_lines(report.notes)):
        out.print(text)
