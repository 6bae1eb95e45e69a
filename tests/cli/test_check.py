"""`madtp check`, and the gates of `compress` and `eval`: exit codes, documents, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import madtp_cli
from madtp_cli.config import EvalSettings
from madtp_cli.errors import UsageError
from madtp_cli.pipelines import evaluate
from tests.reports import compress_report

BUDGET = ("--gflops-budget", "0.7")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A folder with a report.json: one point lost, 0.5 to 1.5."""
    folder = tmp_path / "pruned"
    folder.mkdir()
    (folder / "report.json").write_text(compress_report().model_dump_json())
    return folder


def test_gates_that_hold_exit_with_0_and_print_a_table(madtp, report) -> None:
    """Nothing goes to stderr. The path may be the folder or the document in it."""
    for path in (report, report / "report.json"):
        done = madtp("check", path, "--max-drop", 1.5, "--max-share", 0.2, "--min-speedup", 1.8)
        assert (done.exit_code, done.stderr) == (0, "")
        assert "loss of quality 1 points (0.5 to 1.5) at most 1.5 points pass" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("options", "failure_class"),
    [
        (("--max-drop", "0.4"), "quality"),
        (("--max-drop", "1"), "inconclusive"),
        (("--max-drop", "1", "--max-gain", "0", "--allow-inconclusive"), None),
        (("--max-gflops", "0.1", "--max-drop", "1.5"), "cost"),
        (("--min-speedup", "3"), "speed"),
    ],
)
def test_the_document_tells_a_pipeline_why_it_failed(madtp, report, options, failure_class) -> None:
    """The exit code is 5, the document is complete, and the message on stderr names the gates."""
    done = madtp("check", report, *options, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["failure_class"]) == (5 if failure_class else 0, failure_class)
    assert found["passed"] == (failure_class is None) == (done.stderr == "")
    assert [gate["name"] for gate in found["gates"]["gates"] if gate["failed"]] == (
        [options[0].removeprefix("--").replace("-", "_")] if failure_class else []
    )


def test_junit_and_the_summary_are_written_also_when_a_gate_fails(madtp, report) -> None:
    """A pipeline publishes them after the failure; a second step appends to the summary."""
    for number in (1, 2):
        words = ("check", report, "--max-drop", 0.4, "--junit", "gates.xml")
        assert madtp(*words, env={"GITHUB_STEP_SUMMARY": "summary.md"}).exit_code == 5
        assert Path("summary.md").read_text().count("| :x: | loss of quality |") == number
    assert ElementTree.parse("gates.xml").getroot().get("failures") == "1"


def test_a_baseline_is_compared_or_refused(madtp, report, tmp_path) -> None:
    """Exit code 3 for other versions, unless that is allowed."""
    earlier = compress_report()
    other = earlier.environment.model_copy(update={"torch": "2.12.0"})
    Path("same.json").write_text(earlier.model_dump_json())
    Path("other.json").write_text(earlier.model_copy(update={"environment": other}).model_dump_json())
    words = ("check", report, "--allow-inconclusive", "--json", "--baseline")
    found = json.loads(madtp(*words, "same.json").stdout)
    assert [gate["name"] for gate in found["gates"]["gates"]] == ["max_regression", "max_growth", "max_slowdown"]
    refused = madtp(*words, "other.json")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "torch: 2.13.0, in the baseline 2.12.0" in refused.stderr
    allowed = madtp(*words, "other.json", "--allow-differences")
    assert allowed.exit_code == 0
    assert json.loads(allowed.stdout)["gates"]["differences"] == ["torch: 2.13.0, in the baseline 2.12.0"]


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, (), "--max-drop 1"),
        (2, ("--max-drop", "-1"), "0 or more"),
        (2, ("--max-drop", "1", "--confidence", "1"), "below 1"),
        (2, ("--max-drop", "1", "--split", "val"), "--split has no effect on a report"),
        (2, ("--max-drop", "1", "--dense", "blip.pt"), "--dense has no effect on a report"),
        (6, ("--max-drop", "1", "--junit", "/dev/null/folder.xml"), "cannot be written"),
        (3, ("--max-drop", "1", "--baseline", "absent"), "absent"),
    ],
)
def test_a_wrong_check_is_refused(madtp, report, code, words, message) -> None:
    """Before any gate is decided."""
    done = madtp("check", report, *words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert message in done.stderr


@pytest.mark.parametrize("content", ["", "{", "[]", '{"command": "data"}', '{"command": "compress"}'])
def test_a_file_that_is_no_report_is_refused(madtp, content) -> None:
    """Exit code 3; the message names the file."""
    Path("report.json").write_text(content)
    done = madtp("check", "report.json", "--max-drop", 1)
    assert done.exit_code == 3
    assert "report.json" in done.stderr
    Path("report.json").unlink()
    assert "has no report.json" in madtp("check", ".", "--max-drop", 1).stderr


def test_compress_writes_the_folder_and_then_fails(madtp, checkpoint, small) -> None:
    """The exit code tells; the folder, its report with the verdicts and the JUnit file are there."""
    gates = ("--max-share", "0.1", "--min-agreement", "0", "--max-gain", "100", "--junit", "gates.xml")
    done = madtp("compress", checkpoint, *BUDGET, *small, "--steps", 0, "-o", "out", *gates, "--json")
    assert done.exit_code == 5
    document = json.loads(done.stdout)
    assert document == json.loads(Path("out/report.json").read_text())
    verdicts = {gate["name"]: gate["verdict"] for gate in document["gates"]["gates"]}
    assert verdicts == {"max_share": "fail", "min_agreement": "pass"}
    assert ElementTree.parse("gates.xml").getroot().get("tests") == "2"
    assert madtp("check", "out", "--max-share", 1).exit_code == 0
    assert document["agreement"]["answers"] == 16


def test_check_measures_with_data_and_compares_with_the_dense_model(madtp, compressed, dataset, checkpoint) -> None:
    """The report names the dense checkpoint. Times are measured only if a gate needs them."""
    folder, _ = compressed
    gates = ("--max-drop", 100, "--min-agreement", 0, "--max-latency-ms", 1e6, "--max-gain", 100)
    done = madtp("check", folder, "--data", dataset, "--limit", 8, "--batch-size", 4, *gates, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["source"] == "measured"
    assert found["data"].startswith(str(dataset))
    assert [gate["name"] for gate in found["gates"]["gates"]] == ["max_drop", "max_latency_ms", "min_agreement"]
    document = json.loads(
        madtp("eval", folder, "--data", dataset, "--limit", 8, "--max-drop", 0, "--confidence", 0, "--json").stdout
    )
    assert document["change"]["samples"] == 8
    assert document["change"]["dense"] != 0
    assert document["latency"] is None
    refused = madtp("eval", checkpoint, "--limit", 8, "--max-drop", 1)
    assert refused.exit_code == 2
    assert "--dense" in refused.stderr


def test_another_budget_of_a_range_is_compared_with_the_dense_model(checkpoint, tmp_path) -> None:
    """The budget is for the pruned checkpoint; the dense one has no curve."""
    small: Any = {"limit": 8, "batch_size": 8, "max_gain": 100, "confidence": 0}
    saved = madtp_cli.compress(checkpoint, gflops_budget="0.7..0.9", steps=0, output=tmp_path / "range", **small)
    report = madtp_cli.evaluate(tmp_path / "range", gflops_budget=0.9, max_drop=100, **small)
    assert report.change is not None
    assert report.gflops.pruned is not None
    assert saved.gflops.pruned is not None
    assert report.gflops.pruned > saved.gflops.pruned
    *_, last = saved.budgets
    assert (len(saved.budgets), last.requested) == (3, 0.9)
    assert last.gflops == pytest.approx(report.gflops.pruned)
    assert last.pruned == report.change.pruned
    assert last.pruned_ms > 0
    assert 0 < last.threshold_scale < saved.threshold_scale
    costs = [saved.gflops.pruned, *(point.gflops for point in saved.budgets)]
    assert costs == sorted(costs)


def test_the_dense_checkpoint_is_read_as_the_compression_read_it(tmp_path, monkeypatch) -> None:
    """It may be the name of a model of the hub; what the user gives now has priority."""
    used = {"head_width": {"vision": 80, "text": 64}, "weights": "ema", "prompt": "", "limit": 3}
    report = compress_report(checkpoint="some/model", settings=used)
    (tmp_path / "report.json").write_text(report.model_dump_json())
    with pytest.raises(UsageError, match="some/model does not exist"):
        evaluate.dense_checkpoint(tmp_path, EvalSettings())
    monkeypatch.setattr(evaluate, "locate", lambda path: path)
    dense, settings = evaluate.dense_checkpoint(tmp_path, EvalSettings(weights="raw", limit=9))
    assert dense == Path("some/model")
    assert (settings.head_width, settings.weights, settings.prompt, settings.limit) == (
        {"vision": 80, "text": 64}, "raw", "", 9,
    )  # fmt: skip
    given = EvalSettings(dense=Path("other.pt"))
    assert evaluate.dense_checkpoint(tmp_path, given) == (Path("other.pt"), given)


def test_check_is_a_python_function(report) -> None:
    """A gate that fails is no exception there."""
    result = madtp_cli.check(report, max_drop=0.4, max_share=0.2)
    assert (result.passed, result.failure_class) == (False, "quality")
    assert [gate.verdict for gate in result.gates.gates] == ["pass", "fail"]
    with pytest.raises(UsageError, match="limit has no effect"):
        madtp_cli.check(report, max_drop=1, limit=3)
