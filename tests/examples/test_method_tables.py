"""The tables of results.md that compare the methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import pyplot

from examples import method_plot, method_tables
from madtp_cli.reporting.comparison import CompareReport, ComparisonRow, DifferencePart
from madtp_cli.reporting.schema import Interval


def row(method: str, quality: float | None, **fields) -> ComparisonRow:
    """Return the row of a method at a fifth, whose interval to `madtp` is two points wide."""
    budget = None if method == "dense" else "0.2"
    made = ComparisonRow(method=method, budget=budget, seeds=[0], quality=quality, **fields)
    if quality is None or method == "dense":
        return made
    differences = {"to_dense": quality - 90.0, "to_madtp": None if method == "madtp" else quality - 89.5}
    parts = {
        name: None
        if change is None
        else DifferencePart(change=change, interval95=Interval(low=change - 1, high=change + 1))
        for name, change in differences.items()
    }
    return made.model_copy(update=parts)


def report(*rows: ComparisonRow) -> CompareReport:
    """Return a comparison with these rows."""
    return CompareReport.model_construct(metric="accuracy", samples=2000, rows=list(rows))


ROWS = (
    row("dense", 90.0),
    row("madtp", 89.5),
    row("static", 88.7, within_budget=False),
    row("tome", 70.0),
    row("pitome", None, unreachable="Budget 0.2 cannot be reached."),
)


def column(name: str, *rows: ComparisonRow) -> method_tables.Column:
    """Return the column of these rows at a fifth."""
    return method_tables.column(name, report(*rows), "0.2")


def test_a_table_has_a_line_for_each_method() -> None:
    """The best method is bold, and one that cannot be told from it; an asterisk marks a missed budget."""
    lines = method_tables.table({"nlvr2": column("nlvr2", *ROWS)})
    assert lines == [
        "| method | NLVR2 task, BLIP: accuracy, 2,000 samples |",
        "|---|---|",
        "| dense | 90.00 |",
        "| `madtp` | **89.50** (-0.50 ± 1.00) |",
        "| `static` | **88.70** (-1.30 ± 1.00) * |",
        "| `tome` | 70.00 (-20.00 ± 1.00) |",
        "| `pitome` | not reachable |",
    ]


def test_a_better_baseline_alone_is_bold() -> None:
    """The table hides no defeat; `madtp` is bold too if it cannot be told from the best."""
    assert method_tables.best({made.method: made for made in (*ROWS[:2], row("tome", 91.0))}) == {"tome"}
    assert method_tables.best({made.method: made for made in (*ROWS[:2], row("tome", 89.9))}) == {"tome", "madtp"}


def test_a_method_that_was_not_run_on_a_row_says_so() -> None:
    """Comparisons with other methods can stand side by side, in the order of the rows."""
    lines = method_tables.table({"clip": column("clip", *ROWS[:2]), "nlvr2": column("nlvr2", *ROWS)})
    assert lines[0].index("NLVR2") < lines[0].index("CLIP")
    assert lines[-1] == "| `pitome` | not reachable | not measured |"


def test_the_tables_name_budget_and_training() -> None:
    """One table for each budget that was measured."""
    columns = {"0.3": {}, "0.2": {"nlvr2": column("nlvr2", *ROWS)}}
    lines = method_tables.tables(columns, 360)
    assert "### 20 % of the GFLOPs, after 360 fine-tuning steps" in lines
    assert not any("30 %" in line for line in lines)
    assert "### 20 % of the GFLOPs, without fine-tuning" in method_tables.tables(columns, 0)


def test_a_table_is_read_from_the_page() -> None:
    """What one run wrote, the next one keeps."""
    columns = {"nlvr2": column("nlvr2", *ROWS), "clip": column("clip", *ROWS)}
    page = "\n".join(["# Results", *method_tables.tables({"0.2": columns}, 360), "", "## Next"])
    assert method_tables.on_page(page, "0.2", 360) == columns
    assert method_tables.on_page(page, "0.2", 0) == {}
    assert method_tables.on_page("", "0.2", 360) == {}


def test_the_picture_has_a_panel_for_each_row_and_a_line_for_each_method(tmp_path: Path, monkeypatch) -> None:
    """A method that reaches no budget has no line."""
    drawn: list[Any] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    columns = {"clip": column("clip", *ROWS[:2]), "nlvr2": column("nlvr2", *ROWS)}
    method_plot.draw({"0.3": {}, "0.2": columns}, tmp_path / "methods.png")
    (figure,) = drawn
    monkeypatch.undo()
    first, second, *hidden = figure.axes
    assert [panel.get_title() for panel in (first, second)] == ["NLVR2 task, BLIP", "retrieval, CLIP, five captions"]
    assert not any(panel.get_visible() for panel in hidden)
    assert first.get_ylabel() == "accuracy"
    assert first.get_legend_handles_labels()[1] == ["dense model", "madtp", "static", "tome"]
    assert [line.get_xydata().tolist() for line in second.lines[1:]] == [[[0.2, 89.5]]]
    assert (tmp_path / "methods.png").stat().st_size > 0
    pyplot.close(figure)
