"""The result of `madtp rerun`."""

from __future__ import annotations

from rich.console import Console

from madtp_cli.errors import printable
from madtp_cli.reporting.schema import RerunReport


def show(report: RerunReport, out: Console) -> None:
    """Print whether the weights are the same, and why they may not be."""
    are = "the same" if report.same else "not the same"
    out.print(f"{report.output}: the weights are {are} as those of {report.report}.")
    for name, digest in report.found.items():
        out.print(f"  {name}  {digest}" + ("" if report.same else f" (was {report.expected.get(name)})"))
    for difference in () if report.same else report.differences:
        out.print(f"Possible reason: {printable(difference)}")
