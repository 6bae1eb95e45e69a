"""The page of results keeps the lines that a run does not measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import page_tables, results
from tests.paths import EXAMPLES

INTRODUCTION = """
## Second

Text.

| name | budget | value |
|---|---|---|"""
PAGE = f"""# Page

## First

| name | value |
|---|---|
| a | 0 |
{INTRODUCTION}
| a | 0.5 | 1 |
| b | 0.5 | 2 |

## Third
"""


def test_measured_lines_replace_those_of_the_page() -> None:
    """The order is that of the keys, and a line that nobody measured is left out."""
    keys = [("b", "0.5"), ("a", "0.5"), ("a", "0.3"), ("b", "0.3")]
    lines = page_tables.complete(INTRODUCTION, keys, ["| a | 0.3 | 4 |", "| a | 0.5 | 3 |"], PAGE)
    assert lines == [INTRODUCTION, "| b | 0.5 | 2 |", "| a | 0.5 | 3 |", "| a | 0.3 | 4 |"]


def test_a_page_that_does_not_exist_has_no_lines() -> None:
    """The first run begins with an empty page."""
    assert page_tables.complete(INTRODUCTION, [("a", "0.5")], [], "") == [INTRODUCTION]
    assert page_tables.table("", "## Second") == []


def test_writing_the_page_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without parts nothing is measured, and every line and explanation is that of the page."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    (tmp_path / "results.md").write_text(page, "utf-8")
    (tmp_path / "tried.md").write_text((EXAMPLES / "tried.md").read_text("utf-8"), "utf-8")
    monkeypatch.setattr(results, "HERE", tmp_path)
    monkeypatch.setattr(results, "PICTURE", tmp_path / "methods.png")
    monkeypatch.setattr("sys.argv", ["results", "--parts", "--folder", str(tmp_path / "runs")])
    results.main()
    assert (tmp_path / "results.md").read_text("utf-8") == page
    assert (tmp_path / "methods.png").exists()
