"""The plot of a comparison: quality against GFLOPs, and against the measured time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from madtp_cli import methods
from madtp_cli.errors import install_command
from madtp_cli.reporting.comparison import CONTROL, DENSE, CompareReport, ComparisonRow, is_dominated

MISSING = f"There is no plot, because matplotlib is not installed. To install it: {install_command('matplotlib')}"
#: One colour and marker for each method, in the order of their names, `madtp` first.
COLOURS = (
    "tab:red", "tab:blue", "tab:green", "tab:orange", "tab:purple", "tab:brown", "tab:cyan", "tab:olive", "tab:pink",
)  # fmt: skip
MARKERS = "osD^vP*Xh"
MARKS = "bars: paired 95 % interval; hollow: dominated; black ring: off budget"


def plot(report: CompareReport, file: Path) -> bool:
    """Draw the rows and return True; return False if matplotlib is not installed.

    The bars are the paired intervals of the difference from the dense model. A hollow marker is a dominated point, a
    ring around a marker is a point that is not within 1 % of its budget.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    timed = any(row.milliseconds is not None for row in report.rows)
    figure, panels = pyplot.subplots(
        1, 1 + timed, figsize=(6.2 * (1 + timed), 5.4), squeeze=False, sharey=True, layout="constrained"
    )
    _panel(panels[0][0], report.rows, "gflops", "GFLOPs per sample")
    panels[0][0].set_ylabel(f"{report.metric}, {report.samples:,} {report.split} samples")
    if timed:
        _panel(panels[0][1], report.rows, "milliseconds", "milliseconds per sample")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    training = f"{report.steps} fine-tuning steps" if report.steps else "without training"
    figure.suptitle(f"{Path(report.checkpoint).name}, {training}\n{MARKS}", fontsize="medium")
    figure.savefig(file, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
    return True


def _panel(panel: Any, rows: Sequence[ComparisonRow], field: str, label: str) -> None:
    """Draw all rows, from zero to the cost of the dense model."""
    dense = next(row for row in rows if row.method == DENSE)
    panel.axhline(dense.quality, color="black", linewidth=0.9, linestyle="--", label="dense model")
    if (cost := getattr(dense, field)) is not None:
        panel.plot(cost, dense.quality, marker="o", color="black", markersize=6)
    for row in rows:
        if row.method == CONTROL and row.quality is not None:
            panel.axhline(row.quality, color="grey", linewidth=0.9, linestyle=":", label="control")
    names = sorted(methods.names(), key=lambda name: (name != "madtp", name))
    for number, method in enumerate(names):
        points = [row for row in rows if row.method == method and getattr(row, field) is not None]
        points.sort(key=lambda row: float(getattr(row, field)))
        if points:
            _series(panel, points, field, COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], rows)
    panel.set_xlim(left=0)
    panel.set_xlabel(label)
    panel.grid(alpha=0.25)


def _series(
    panel: Any, points: Sequence[ComparisonRow], field: str, colour: str, marker: str, rows: Sequence[ComparisonRow]
) -> None:
    """Draw the points of one method, with their intervals."""
    at = [float(getattr(row, field)) for row in points]
    quality = [float(row.quality or 0.0) for row in points]
    panel.errorbar(at, quality, yerr=_bars(points), color=colour, linewidth=1, capsize=2)
    panel.plot([], [], color=colour, marker=marker, linewidth=1, label=points[0].method)
    for x, y, row in zip(at, quality, points, strict=True):
        face = "white" if _is_dominated(row, field, rows) else colour
        front = 4 if row.method == "madtp" else 3
        panel.plot(x, y, marker=marker, color=colour, markerfacecolor=face, markersize=6, zorder=front)
        if row.within_budget is False:
            panel.plot(x, y, marker="o", color="black", markerfacecolor="none", markersize=11)


def _bars(points: Sequence[ComparisonRow]) -> tuple[list[float], list[float]]:
    """Return how far the intervals reach below and above the qualities; a quality in percent ends at 0 and 100."""
    below, above = [], []
    for row in points:
        part, quality = row.to_dense, row.quality or 0.0
        if part is None:
            low = high = 0.0
        elif part.unit == "points":
            low = min(part.change - part.interval95.low, quality)
            high = min(part.interval95.high - part.change, 100 - quality)
        else:
            scale = quality / (100 + part.change)
            low, high = (part.change - part.interval95.low) * scale, (part.interval95.high - part.change) * scale
        below.append(max(0.0, low))
        above.append(max(0.0, high))
    return below, above


def _is_dominated(row: ComparisonRow, field: str, rows: Sequence[ComparisonRow]) -> bool:
    """Return whether another row has at least this quality at no larger value of the field."""
    known = [
        (float(getattr(other, field)), other.quality)
        for other in rows
        if other.quality is not None and getattr(other, field) is not None
    ]
    return is_dominated((float(getattr(row, field)), float(row.quality or 0.0)), known)
