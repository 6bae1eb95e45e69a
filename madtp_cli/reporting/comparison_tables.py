"""A comparison as CSV and as a Markdown table."""

from __future__ import annotations

import csv
import io

from madtp_cli.reporting.comparison import CONTROL, DENSE, CompareReport, ComparisonRow, DifferencePart

#: The meaning of the words in the last column.
LEGEND = (
    "off budget: the cost of these samples differs from the budget by more than 1 %; a budget is met on validation "
    "samples. dominated: another row has at least this quality for at most this cost; costs within 1 % are equal."
)
#: What stands where a row has no figure.
NOTHING = "–"
#: Names of the rows that are no methods.
NAMES = {DENSE: "dense model", CONTROL: "dense model, same fine-tuning (control)"}


def to_csv(report: CompareReport) -> str:
    """Return one line for each row, with both ends of each interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    differences = [f"{name}_{end}" for name in ("to_dense", "to_madtp") for end in ("change", "low", "high")]
    plain = ["gflops", "share", "within_budget", "quality", "milliseconds", "speedup", "dominated"]
    writer.writerow(["method", "budget", "seeds", *plain, *differences, "unit", "quality_of_seeds", "unreachable"])
    for row in report.rows:
        figures = ["" if (value := getattr(row, name)) is None else value for name in plain]
        ends = [end for part in (row.to_dense, row.to_madtp) for end in _ends(part)]
        of_seeds = " ".join(str(value) for value in row.quality_of_seeds)
        unit = row.to_dense.unit if row.to_dense is not None else ""
        name = [row.method, row.budget or "", len(row.seeds)]
        writer.writerow([*name, *figures, *ends, unit, of_seeds, row.unreachable or ""])
    return text.getvalue()


def _ends(part: DifferencePart | None) -> list[float | str]:
    return ["", "", ""] if part is None else [part.change, part.interval95.low, part.interval95.high]


def to_markdown(report: CompareReport) -> str:
    """Return the table with a line about the samples above it and the meaning of the marks below."""
    training = f"after {report.steps} fine-tuning steps" if report.steps else "without training"
    lines = [
        f"{report.metric} of {report.checkpoint} on {report.samples:,} {report.split} samples of {report.data}, "
        f"{training}. Brackets: paired 95 % interval.",
        "",
        "| budget | method | GFLOPs | share | quality | to dense | to madtp | ms per sample | |",
        "|---|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(cells(row))} |" for row in report.rows),
        "",
        LEGEND,
        *(f"\n{line}" for line in unreachable_lines(report)),
    ]
    return "\n".join(lines) + "\n"


def unreachable_lines(report: CompareReport) -> list[str]:
    """Return a line with the reason for each row without figures."""
    return [f"{row.method} at {row.budget}: {row.unreachable}" for row in report.rows if row.unreachable is not None]


def cells(row: ComparisonRow) -> list[str]:
    """Return the cells of a row as text."""
    name = NAMES.get(row.method, row.method) + (f" ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else "")
    if row.unreachable is not None or row.gflops is None:
        return [row.budget or NOTHING, name, *[NOTHING] * 6, "cannot reach the budget"]
    marks = ["dominated"] * bool(row.dominated) + ["off budget"] * (row.within_budget is False)
    return [
        row.budget or NOTHING,
        name,
        f"{row.gflops:.4g}",
        f"{row.share:.3f}",
        _quality(row),
        difference(row.to_dense),
        difference(row.to_madtp),
        NOTHING if row.milliseconds is None else f"{row.milliseconds:.3g}",
        ", ".join(marks),
    ]


def _quality(row: ComparisonRow) -> str:
    """Return the quality, of several seeds with the lowest and the highest one."""
    of_seeds = row.quality_of_seeds
    spread = f" ({min(of_seeds):.2f} to {max(of_seeds):.2f})" if len(of_seeds) > 1 else ""
    return f"{row.quality:.2f}{spread}"


def difference(part: DifferencePart | None) -> str:
    """Return a difference with its interval, in points where it has no unit.

    >>> from madtp_cli.reporting.parts import Interval
    >>> difference(DifferencePart(change=-1.5, interval95=Interval(low=-2.25, high=-0.75)))
    '-1.50 [-2.25, -0.75]'
    >>> difference(DifferencePart(change=2.0, interval95=Interval(low=1.0, high=3.0), unit="percent of the score"))
    '+2.00 % [+1.00, +3.00]'
    """
    if part is None:
        return NOTHING
    unit = "" if part.unit == "points" else " %"
    return f"{part.change:+.2f}{unit} [{part.interval95.low:+.2f}, {part.interval95.high:+.2f}]"
