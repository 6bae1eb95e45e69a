"""Draw all methods: quality against the share of the GFLOPs, one panel for each row of results.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.method_tables import HEADS
from madtp_cli import methods
from madtp_cli.pipelines.comparison_plot import COLOURS, MARKERS
from madtp_cli.reporting.comparison import DENSE, CompareReport

#: Panels beside each other.
COLUMNS = 4


def draw(reports: Mapping[str, CompareReport], file: Path) -> None:
    """Draw the comparisons into one picture.

    Args:
        reports: The comparison of each row of results.md, by the name of the row.
        file: The picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(reports) // COLUMNS)
    size = (3.1 * COLUMNS, 2.9 * rows + 0.6)
    figure, panels = pyplot.subplots(rows, COLUMNS, figsize=size, squeeze=False, sharex=True, layout="constrained")
    for panel in panels.flat[len(reports) :]:
        panel.set_visible(False)
    for panel, (row, report) in zip(panels.flat, reports.items(), strict=False):
        _draw_panel(panel, report)
        panel.set_title(HEADS[row], fontsize="medium")
        panel.set_ylabel(report.metric)
    for panel in panels[-1]:
        panel.set_xlabel("share of the dense GFLOPs")
    known = {
        label: line for panel in panels.flat for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw_panel(panel: Any, report: CompareReport) -> None:
    """Draw one comparison: a line for each method, and the quality of the dense model."""
    dense = next(row for row in report.rows if row.method == DENSE)
    panel.axhline(dense.quality, color="black", linewidth=0.9, linestyle="--", label="dense model")
    names = sorted(methods.names(), key=lambda name: (name != "madtp", name))
    for number, method in enumerate(names):
        rows = [row for row in report.rows if row.method == method and row.quality is not None]
        points = sorted((float(row.gflops or 0) / float(dense.gflops or 1), float(row.quality or 0)) for row in rows)
        if points:
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            front = 4 if method == "madtp" else 3
            panel.plot(*zip(*points, strict=True), **style, markersize=5, linewidth=1.2, label=method, zorder=front)
    panel.set_ylim(bottom=0)
    panel.set_xlim(0.15, 0.55)
    panel.grid(alpha=0.25)
