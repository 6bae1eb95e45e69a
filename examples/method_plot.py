"""Draw all methods: quality against the share of the GFLOPs, one panel for each row of results.md."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.method_tables import FIRST, HEADS, Column
from madtp_cli import methods
from madtp_cli.pipelines.comparison_plot import COLOURS, MARKERS
from madtp_cli.reporting.comparison import DENSE

#: Panels beside each other.
COLUMNS = 4


def draw(tables: Mapping[str, Mapping[str, Column]], file: Path) -> None:
    """Draw the tables into one picture.

    Args:
        tables: The columns of each budget by the name of the row of results.md.
        file: The picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in HEADS if any(name in columns for columns in tables.values())]
    rows = -(-len(names) // COLUMNS)
    size = (3.1 * COLUMNS, 2.9 * rows + 0.6)
    figure, panels = pyplot.subplots(rows, COLUMNS, figsize=size, squeeze=False, sharex=True, layout="constrained")
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    for panel, name in zip(panels.flat, names, strict=False):
        _draw_panel(panel, {budget: columns[name] for budget, columns in tables.items() if name in columns})
        panel.set_title(HEADS[name], fontsize="medium")
    for panel in panels[-1]:
        panel.set_xlabel("share of the dense GFLOPs")
    known = {
        label: line for panel in panels.flat for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw_panel(panel: Any, columns: Mapping[str, Column]) -> None:
    """Draw one row of the page: a line for each method, and the quality of the dense model.

    Args:
        panel: The panel of matplotlib.
        columns: The column of the row by budget.
    """
    some = next(iter(columns.values()))
    panel.set_ylabel(some[FIRST].partition(": ")[2].partition(",")[0])
    panel.axhline(_quality(some[DENSE]), color="black", linewidth=0.9, linestyle="--", label="dense model")
    names = sorted(methods.names(), key=lambda name: (name != "madtp", name))
    for number, method in enumerate(names):
        found = {float(budget): _quality(column.get(f"`{method}`", "")) for budget, column in columns.items()}
        points = sorted((budget, quality) for budget, quality in found.items() if quality is not None)
        if points:
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            front = 4 if method == "madtp" else 3
            panel.plot(*zip(*points, strict=True), **style, markersize=5, linewidth=1.2, label=method, zorder=front)
    panel.set_ylim(bottom=0)
    panel.set_xlim(0.15, 0.55)
    panel.grid(alpha=0.25)


def _quality(cell: str) -> float | None:
    """Return the quality in a cell, or None if the method was not measured or cannot reach the budget."""
    match = re.match(r"\**([\d.]+)", cell)
    return float(match[1]) if match else None
