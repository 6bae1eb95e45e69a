"""The tables and the plot of a comparison, from rows that are made by hand."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from madtp_cli import methods
from madtp_cli.evaluation.report_parts import environment
from madtp_cli.pipelines import comparison_plot
from madtp_cli.reporting import comparison_tables
from madtp_cli.reporting.comparison import CompareReport, ComparisonRow, DifferencePart, is_dominated
from madtp_cli.reporting.parts import Interval


@pytest.fixture
def report() -> CompareReport:
    """Return a comparison of one method."""
    part = DifferencePart(change=-1.0, interval95=Interval(low=-2.0, high=0.0))
    figures: dict[str, Any] = dict(seeds=[0], gflops=0.5, share=0.5, quality=90.0)
    rows = [
        ComparisonRow(method="dense", budget=None, seeds=[0], gflops=1.0, share=1.0, quality=91.0),
        ComparisonRow(method="tome", budget="0.5", **figures, to_dense=part, within_budget=True, dominated=False),
    ]
    texts: dict[str, Any] = dict(
        checkpoint="blip.pt", output="out", task="vqa", data="scenes", metric="VQA accuracy", split="test"
    )
    numbers: dict[str, Any] = dict(samples=8, groups=8, steps=0, seconds=1.0)
    return CompareReport(**texts, **numbers, rows=rows, files=[], settings={}, environment=environment())


def test_dominated_points_and_marks() -> None:
    """Same cost and same quality do not dominate each other."""
    assert not is_dominated((1.0, 90.0), [(1.0, 90.0)])
    assert is_dominated((1.0, 90.0), [(1.0, 90.0), (1.0, 91.0)])


def test_the_markdown_table_names_the_rows(report: CompareReport) -> None:
    """`dense` is a word of the JSON, people read the name."""
    assert "| – | dense model |" in comparison_tables.to_markdown(report)


def test_a_cost_below_the_budget_is_not_called_over(report: CompareReport) -> None:
    """The cost of test samples may differ from that of validation samples in both directions."""
    row = report.rows[1].model_copy(update={"within_budget": False, "dominated": False})
    assert comparison_tables.cells(row)[-1] == "off budget"
    assert comparison_tables.LEGEND.startswith("off budget: ")
    assert comparison_tables.LEGEND in comparison_tables.to_markdown(report)


def test_differences_of_cider_have_their_unit(report: CompareReport) -> None:
    """They are in percent of a score that is not in percent itself."""
    relative = DifferencePart(change=0.4, interval95=Interval(low=-4.5, high=5.3), unit="percent of the score")
    row = report.rows[1].model_copy(update={"to_dense": relative, "quality_of_seeds": [80.0, 90.0]})
    assert "+0.40 % [-4.50, +5.30]" in comparison_tables.cells(row)
    assert any("(80.00 to 90.00)" in cell for cell in comparison_tables.cells(row))
    line = next(csv.DictReader(comparison_tables.to_csv(report.model_copy(update={"rows": [row]})).splitlines()))
    assert (line["unit"], line["quality_of_seeds"]) == ("percent of the score", "80.0 90.0")


def test_the_plot_has_a_colour_for_each_method_and_ends_at_100_percent() -> None:
    """Two methods of one colour could not be told apart."""
    assert len(set(comparison_plot.COLOURS)) == len(comparison_plot.COLOURS) >= len(methods.names())
    part = DifferencePart(change=-1.0, interval95=Interval(low=-5.0, high=9.0))
    row = ComparisonRow(method="tome", budget="0.5", seeds=[0], quality=97.0, to_dense=part)
    assert comparison_plot._bars([row]) == ([4.0], [3.0])


def test_costs_within_one_percent_do_not_dominate() -> None:
    """A budget is met within 1 %, so the cheaper one of two is a matter of chance there."""
    assert not is_dominated((1.0, 90.0), [(0.995, 90.0)])
    assert is_dominated((1.0, 90.0), [(0.98, 90.0)])
