"""`compare`: equal budgets, one file per point, an interrupted run is continued, and what a row states."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import madtp_cli
from madtp_cli.compression import teacher_cache, threshold_search
from madtp_cli.config import CompareSettings, resolve
from madtp_cli.errors import BudgetError, OutputError, UsageError
from madtp_cli.evaluation import timing
from madtp_cli.evaluation.intervals import paired_interval95
from madtp_cli.pipelines import compare as pipeline
from madtp_cli.pipelines import comparison_plan, comparison_plot, comparison_reach
from madtp_cli.reporting import comparison_tables
from madtp_cli.reporting.comparison import (
    CompareReport,
    ComparisonPoint,
)

#: A comparison of seconds.
GIVEN: dict[str, Any] = dict(methods="tome,madtp", budgets="0.8,0.02", steps=0, limit=8, batch_size=8, device="cpu")


@pytest.fixture(scope="module")
def compared(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, CompareReport]]:
    """Return the folder and the report of a comparison without training, with times."""
    folder = tmp_path_factory.mktemp("compared") / "results"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(timing, "SECONDS", 0.1)
        patched.setattr(threshold_search, "MOST_PASSES", 5)
        yield folder, madtp_cli.compare(checkpoint, **GIVEN, output=folder)


def point(folder: Path, name: str) -> ComparisonPoint:
    """Read the file of a point."""
    return ComparisonPoint.model_validate_json((folder / "points" / f"{name}.json").read_text(encoding="utf-8"))


def test_each_row_has_its_cost_and_paired_differences(compared: tuple[Path, CompareReport]) -> None:
    """The figures follow from the scores in the files of the points; madtp comes first."""
    folder, report = compared
    dense, madtp, tome = report.rows[:3]
    assert [row.method for row in report.rows] == ["dense", "madtp", "tome", "madtp", "tome"]
    assert report.steps == 0
    scores = {name: point(folder, name).scores for name in ("dense", "madtp-0.8-0", "tome-0.8-0")}
    assert {len(values) for values in scores.values()} == {8}
    assert dense.quality == pytest.approx(100 * sum(scores["dense"]) / 8)
    assert tome.to_madtp is not None
    assert tome.to_dense is not None
    assert tome.to_madtp.change == pytest.approx((tome.quality or 0) - (madtp.quality or 0))
    ends = paired_interval95(scores["madtp-0.8-0"], scores["tome-0.8-0"])
    assert (tome.to_madtp.interval95.low, tome.to_madtp.interval95.high) == pytest.approx(ends)
    assert dense.to_dense is None
    assert madtp.to_madtp is None
    for row in (madtp, tome):
        assert row.within_budget == (abs((row.share or 0) - 0.8) <= 0.008)
        assert (row.milliseconds or 0) > 0
        assert (row.speedup or 0) > 0


def test_a_budget_out_of_reach_is_a_row_with_the_reason(compared: tuple[Path, CompareReport]) -> None:
    """tome at most halves the tokens of a block; the other rows are there all the same."""
    _, report = compared
    unreachable = [row for row in report.rows if row.budget == "0.02"]
    assert all(row.unreachable and "cannot be reached" in row.unreachable for row in unreachable)
    assert all(row.quality is row.dominated is row.within_budget is None for row in unreachable)
    assert f"madtp at 0.02: {unreachable[0].unreachable}" in comparison_tables.to_markdown(report)


def test_budgets_that_no_method_reaches_are_an_error(checkpoint: Path, tmp_path: Path) -> None:
    """Before any forward pass, with the range, for the plan too."""
    given = {**GIVEN, "budgets": "0.01,26.5G", "output": tmp_path / "out"}
    settings = resolve(given, None, {}, CompareSettings)
    for run in (pipeline.compare, comparison_plan.compare):
        with pytest.raises(BudgetError, match=r"No budget can be reached\. With tome: .* can cost 0\.\d+ to"):
            run(checkpoint, settings)


def test_a_method_that_is_not_for_the_model_is_a_row_with_the_reason(
    checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    """So the default, all methods, also works for a model that keeps the proportions of its images."""
    student = comparison_reach.prunable_student

    def refused(model: Any, method: str) -> Any:
        if method == "resize":
            raise UsageError("--method resize makes square images smaller.\nChoose another method.")
        return student(model, method)

    monkeypatch.setattr(comparison_reach, "prunable_student", refused)
    monkeypatch.setattr(threshold_search, "MOST_PASSES", 3)
    given = {**GIVEN, "methods": "resize,random", "budgets": "0.8", "time": False}
    report = madtp_cli.compare(checkpoint, **given, output=tmp_path / "out")
    reasons = {row.method: row.unreachable for row in report.rows}
    assert reasons == {"dense": None, "random": None, "resize": "--method resize makes square images smaller."}


def test_the_files_say_the_same(compared: tuple[Path, CompareReport]) -> None:
    """JSON, CSV, Markdown and plot; the plot is an image of two panels."""
    folder, report = compared
    assert CompareReport.model_validate_json((folder / "comparison.json").read_text(encoding="utf-8")) == report
    lines = list(csv.DictReader((folder / "comparison.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["method"] for line in lines] == [row.method for row in report.rows]
    assert float(lines[1]["quality"]) == report.rows[1].quality
    assert float(lines[2]["to_madtp_low"]) == report.rows[2].to_madtp.interval95.low  # type: ignore[union-attr]
    table = (folder / "comparison.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == len(report.rows) + 1
    assert "cannot reach the budget" in table
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_was_ended_is_continued(compared: tuple[Path, CompareReport], tmp_path: Path, monkeypatch) -> None:
    """Only the missing point is computed, and the result is that of a run without a break."""
    folder, whole = compared
    shutil.copytree(folder, tmp_path / "out")
    (tmp_path / "out/points/tome-0.8-0.json").unlink()
    done: list[str] = []
    compress_model = pipeline.compress_model

    def noted(session: Any, settings: Any, **given: Any) -> Any:
        done.append(settings.method)
        return compress_model(session, settings, **given)

    def stopped(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "compress_model", stopped)
    with pytest.raises(KeyboardInterrupt) as ended:
        madtp_cli.compare(whole.checkpoint, **GIVEN, output=tmp_path / "out")
    left = f"4 finished points are in {tmp_path / 'out/points'}. The same command computes only the others."
    assert ended.value.__notes__ == [left]
    monkeypatch.setattr(pipeline, "compress_model", noted)
    again = madtp_cli.compare(whole.checkpoint, **GIVEN, output=tmp_path / "out")
    assert done == ["tome"]
    untimed = dict(milliseconds=None, speedup=None)
    assert [row.model_copy(update=untimed) for row in again.rows] == [
        row.model_copy(update=untimed) for row in whole.rows
    ]


def test_points_of_other_inputs_are_refused(compared: tuple[Path, CompareReport], tmp_path: Path) -> None:
    """They would be compared with points of another data set or another length."""
    folder, whole = compared
    shutil.copytree(folder, tmp_path / "out")
    changed = {**GIVEN, "limit": 6, "batch_size": 4}
    with pytest.raises(OutputError, match=r"was made with `batch_size=8` \(now 4\) and `limit=8` \(now 6\)\."):
        madtp_cli.compare(whole.checkpoint, **changed, output=tmp_path / "out")
    other = shutil.copytree(Path(whole.checkpoint).parent / "tokenizer", tmp_path / "tokenizer")
    file = other / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"model_max_length": 17}), encoding="utf-8")
    with pytest.raises(OutputError, match=r"was made with another processor\."):
        madtp_cli.compare(whole.checkpoint, **GIVEN, tokenizer=other, output=tmp_path / "out")
    (tmp_path / "out/points/dense.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="is no point of a comparison"):
        madtp_cli.compare(whole.checkpoint, **GIVEN, output=tmp_path / "out")
    whole_file = folder / "points/dense.json"
    shortened = {**json.loads(whole_file.read_text("utf-8")), "scores": [1.0]}
    (tmp_path / "out/points/dense.json").write_text(json.dumps(shortened), encoding="utf-8")
    with pytest.raises(OutputError, match=r"dense\.json is damaged"):
        madtp_cli.compare(whole.checkpoint, **GIVEN, output=tmp_path / "out")


def test_settings_that_mean_the_same_continue_a_comparison(
    compared: tuple[Path, CompareReport], tmp_path: Path, monkeypatch
) -> None:
    """A default that is written out is no other setting. Points without times are named."""
    folder, whole = compared
    shutil.copytree(folder, tmp_path / "out")
    for name in ("dense", "madtp-0.8-0"):
        untimed = point(folder, name).model_copy(update={"latency": None})
        (tmp_path / f"out/points/{name}.json").write_text(untimed.model_dump_json(), encoding="utf-8")
    monkeypatch.setattr(pipeline, "compress_model", None)  # nothing is computed
    same = {**GIVEN, "device": "auto", "task": "nlvr2", "dtype": "float32"}
    again = madtp_cli.compare(whole.checkpoint, **same, output=tmp_path / "out")
    assert [row.quality for row in again.rows] == [row.quality for row in whole.rows]
    assert any("were made with --no-time" in note for note in again.notes)


def test_files_of_others_are_not_replaced(compared: tuple[Path, CompareReport], tmp_path: Path) -> None:
    """A folder that has no points is not one of compare, whatever its files are called."""
    mine = tmp_path / "comparison.csv"
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="is not empty, and madtp compare did not write it"):
        madtp_cli.compare(compared[1].checkpoint, **GIVEN, output=tmp_path)
    assert mine.read_text("utf-8") == "mine"


@pytest.mark.slow
def test_training_has_a_control_and_the_teacher_runs_once_per_sample(
    checkpoint: Path, tmp_path: Path, monkeypatch
) -> None:
    """The control costs what the dense model costs; a method then learns from the same cached outputs."""
    seen: list[int] = []
    split = teacher_cache._by_sample

    def noted(targets: Any, samples: int) -> Any:
        seen.append(samples)
        return split(targets, samples)

    monkeypatch.setattr(teacher_cache, "_by_sample", noted)
    monkeypatch.setattr(threshold_search, "MOST_PASSES", 3)
    given = {**GIVEN, "methods": "random", "budgets": "0.8", "steps": 3, "time": False}
    report = madtp_cli.compare(checkpoint, **given, output=tmp_path / "out")
    dense, control, random = report.rows
    assert [row.method for row in report.rows] == ["dense", "control", "random"]
    assert control.gflops == dense.gflops
    assert control.to_dense is not None
    assert (random.gflops or 0) < (dense.gflops or 0)
    # Eight training samples in one pass, and four validation samples that tell how far the pruned model is from the
    # dense one. The announcement of the time looks at one sample.
    assert [size for size in seen if size > 1] == [8, 4]


def test_without_matplotlib_there_is_a_note_instead_of_the_plot(
    compared: tuple[Path, CompareReport], tmp_path: Path, monkeypatch
) -> None:
    """A table is worth having on a machine without the extra."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert not comparison_plot.plot(compared[1], tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
