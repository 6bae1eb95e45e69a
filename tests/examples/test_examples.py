"""The example checkpoint is what its record says, and the scripts beside it run."""

from __future__ import annotations

import json
import re

import pytest
from safetensors import safe_open

from examples import ablation, results
from madtp_cli.evaluation import timing
from madtp_cli.reporting.schema import BudgetPart, ChangePart, CompressReport, GflopsPart
from tests.paths import EXAMPLES


def test_the_example_is_trained_as_its_record_says(madtp) -> None:
    """200 test pairs; five points are three standard errors at the accuracy on record."""
    done = madtp("eval", EXAMPLES / "blip.pt", "--limit", 200, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    recorded = json.loads((EXAMPLES / "pretrain.json").read_text("utf-8"))["test_accuracy"]["all"]
    assert abs(json.loads(done.stdout)["quality"]["value"] - recorded) < 5
    assert (EXAMPLES / "blip.pt").stat().st_size < 6e6


@pytest.mark.parametrize(
    "record", [*sorted(EXAMPLES.glob("*-*.json")), EXAMPLES / "clip.json"], ids=lambda path: path.stem
)
def test_every_other_example_is_as_good_as_its_record_says(madtp, record) -> None:
    """100 test samples; among fewer images the right one is found more easily, so retrieval may do better."""
    recorded = json.loads(record.read_text("utf-8"))
    done = madtp("eval", record.with_suffix(".pt"), "--limit", 100, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    quality = json.loads(done.stdout)["quality"]
    assert quality["value"] > 0.85 * recorded[quality["metric"]]
    assert record.with_suffix(".pt").stat().st_size < 6e6


@pytest.mark.parametrize("source", sorted(EXAMPLES.glob("*.pt")), ids=lambda path: path.stem)
def test_every_example_can_be_compressed_in_half_precision(madtp, tmp_path, monkeypatch, source) -> None:
    """Fine-tuned too; what is kept in float16 meanwhile, lessons and an image's tokens, has to meet bfloat16."""
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    given = ["--gflops-budget", 0.6, "--steps", 2, "--limit", 16, "--batch-size", 4, "--dtype", "bfloat16"]
    done = madtp("compress", source, *given, "--output", tmp_path / "out", "--json", "-q")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["latency"]["dtype"], report["settings"]["steps"]) == ("bfloat16", 2)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}  # noqa: SIM118  no mapping


def test_the_ablation_meets_the_budget_in_every_line(capsys) -> None:
    """Else its lines would not compare at equal cost."""
    ablation.main(["--samples", "24", "--gflops-budget", "0.4"])
    dense, *lines = capsys.readouterr().out.splitlines()
    assert "of 24 validation pairs" in dense
    assert len(lines) == len(ablation.WITHOUT)
    shares = [float(found[1]) for line in lines if (found := re.search(r"at (\d\.\d+)", line))]
    assert len(shares) == len(lines)
    assert all(abs(share - 0.4) < 0.02 for share in shares)


def test_a_row_of_the_results_says_what_its_report_says() -> None:
    """Steps are those of the run that is read, which may be another one than would be made now."""
    report = CompressReport.model_construct(
        budget=BudgetPart(requested="0.2", share=0.2, gflops=2.0, achieved_val=1.99, achieved_share=0.199, samples=9),
        gflops=GflopsPart.of(10.0, 1.98),
        quality=ChangePart(
            metric="VQA accuracy",
            split="test",
            samples=2000,
            groups=2000,
            dense=70.0,
            pruned=69.0,
            change=-1.0,
            interval95=(-2, 0),
        ),
        settings={"steps": 120},
    )
    row = [cell.strip() for cell in results.row_of("vqa", "0.2", report).strip("|").split("|")]
    assert row == ["BLIP on VQAv2", "0.2", "120", "-0.50%", "0.198", "VQA accuracy", "70.00", "69.00",
                   "-1.00 (-2.00 to +0.00)", "2,000"]  # fmt: skip


def test_the_results_have_every_row_and_budget() -> None:
    """And every budget was met, as the page says of itself."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "points" not in line]
    made = {(row[0], row[1]): row for row in rows if len(row) == 10 and re.fullmatch(r"0\.\d", row[1])}
    assert made.keys() == {(title, budget) for title, *_ in results.ROWS.values() for budget in ("0.5", "0.3", "0.2")}
    assert all(abs(float(row[3].rstrip("%"))) <= 1 for row in made.values())
