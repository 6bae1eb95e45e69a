"""The table of results.md about a checkpoint for a range of budgets."""

from __future__ import annotations

from examples import range_table
from madtp_cli.reporting.schema import EvalReport, GflopsPart, Interval, QualityPart
from tests.paths import EXAMPLES
from tests.reports import change, compress_report


def test_a_line_compares_the_range_with_a_checkpoint_for_one_budget() -> None:
    """A budget without such a checkpoint has empty cells."""
    quality = QualityPart.model_construct(value=98.5, interval95=Interval(low=97.9, high=99.1))
    measured = EvalReport.model_construct(quality=quality, gflops=GflopsPart.model_construct(share=0.3987))
    alone = compress_report(quality=change(-1.0))
    cells = [cell.strip() for cell in range_table.line("0.4", measured, alone).strip("|").split("|")]
    assert cells[:3] == ["0.4", "0.399", "98.50 ± 0.60"]
    assert cells[3:] == [
        f"{alone.gflops.share:.3f}",
        f"{alone.quality.pruned:.2f}",
        f"{98.5 - alone.quality.pruned:+.2f}",
    ]
    assert range_table.line("0.5", measured, None) == "| 0.5 | 0.399 | 98.50 ± 0.60 |  |  |  |"


def test_the_page_has_a_line_for_each_budget() -> None:
    """The cost on test samples rises with the budget, and is near it."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    rows = page[page.index(range_table.INTRODUCTION) + len(range_table.INTRODUCTION) :].split("\n\n")[0].split("\n")[1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == list(range_table.BUDGETS)
    shares = [float(row[1]) for row in cells]
    assert shares == sorted(shares, reverse=True)
    assert all(abs(share / float(row[0]) - 1) < 0.03 for share, row in zip(shares, cells, strict=True))
    assert [row[0] for row in cells if row[3]] == list(range_table.ALONE)
