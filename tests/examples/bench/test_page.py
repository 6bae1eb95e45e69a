"""The arithmetic of the benchmark's tables, and its records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from examples.bench import cases, page
from examples.bench.timings import Case, Timing
from tests.paths import EXAMPLES


def case(**fields: Any) -> Case:
    """Return a case: dense takes 8 s for 4 samples at 100 GFLOPs, pruned 2 s at 20 GFLOPs (medians)."""
    timings = [
        Timing("dense", 1.0, [9.0, 8.0, 1.0], 100.0, 400.0),
        Timing("stock", 1.0, [12.0, 12.0, 2.0], 100.0),
        Timing("pruned", 0.2, [3.0, 2.0, 0.25], 20.0, 300.0),
        Timing("padded", 0.2, [3.0, 3.0, 1.0], 30.0),
        Timing("uniform", 0.2, [1.8, 1.6, 0.5], 20.0),
    ]
    defaults: dict[str, Any] = dict(architecture="toy", device="cpu", dtype="float32", threads=2, samples=4)
    defaults |= dict(image_size=32, text_tokens=7, timings=timings)
    defaults |= dict(padding_ratios={"0.2": (1.5, 1.6)}, statistics={"0.2": [(5.0, 2, 8, 2.2)]})
    return Case(**defaults | fields)


def test_the_table_has_the_ratios_of_the_times() -> None:
    """4 times faster with 5 times fewer FLOPs is an efficiency of 0.8; 1.5 times the tokens is a target of 1.35."""
    (row,) = page.case_rows(case())
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "cpu", "float32", "4", "0.2", "2,000", "3,000", "500", "5.00x", "4.00x", "**0.80**", "6.00x",
        "1.50x (1.35x; 1.44x)", "1.00", "300 of 400 MB",
    ]  # fmt: skip
    empty = page.empty_rows("cuda", "half", 1, [0.5])[0]
    assert page.HEAD.splitlines()[0].count("|") == row.count("|") == empty.count("|")


def test_the_page_states_the_number_of_runs() -> None:
    """A median of three runs is less certain than one of five."""
    five = replace(case(dtype="bfloat16", samples=8), timings=[Timing("dense", 1.0, [2.0] * 5, 10.0)])
    expected = "Timed runs of each variant: 3 (float32, batch 4), 5 (bfloat16, batch 8)."
    assert page.number_of_runs([case(), five]) == expected


def test_growth_is_sorted_and_per_batch() -> None:
    """The row of the longer text comes last, in whatever order the cases were timed."""
    lines = page.growth_section([case(growing="text", text_tokens=40), case(growing="text", text_tokens=5)])
    rows = [line for line in lines if line.startswith(("| 5 |", "| 40 |"))]
    assert [row.split("|")[1].strip() for row in rows] == ["5", "40"]
    assert "| 8,000 | 400 | 2,000 | 300 | 0.80 |" in rows[0]


def test_a_recorded_case_is_not_timed_again(tmp_path) -> None:
    """A run of several hours continues where it stopped, with the same figures."""
    file = tmp_path / "deep" / "case.json"
    first = cases.recorded_case(file, case)
    assert cases.recorded_case(file, lambda: pytest.fail("timed again")) == first
    assert page.case_rows(first) == page.case_rows(case())


def test_the_committed_page_has_the_words_of_the_script() -> None:
    """The page takes hours to make, so a change of the explanations is also made in the page by hand."""
    text = (EXAMPLES / "bench.md").read_text("utf-8")
    assert page.EXPLANATION in text
    assert page.HEAD in text
