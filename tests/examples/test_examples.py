"""The example checkpoints have the quality that their records state, and the scripts in examples/ run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from examples import ablation, encoder_table, results, seeds
from madtp_cli.evaluation import timing
from madtp_cli.reporting.schema import BudgetPart, ChangePart, CompressReport, GflopsPart, Interval
from tests.paths import EXAMPLES

#: Largest size of an example checkpoint in bytes.
LARGEST = 6e6


def test_the_nlvr2_example_has_the_accuracy_of_its_record(madtp) -> None:
    """On 200 test pairs, five points are three standard errors at the recorded accuracy."""
    done = madtp("eval", EXAMPLES / "blip.pt", "--limit", 200, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    recorded = json.loads((EXAMPLES / "pretrain.json").read_text("utf-8"))["test_accuracy"]["all"]
    assert abs(json.loads(done.stdout)["quality"]["value"] - recorded) < 5
    assert (EXAMPLES / "blip.pt").stat().st_size < LARGEST


def checkpoint_of(record: Path) -> Path:
    """Return the file or folder whose training a record is about."""
    file = record.with_suffix(".pt")
    return file if file.exists() else record.with_suffix("")


@pytest.mark.parametrize(
    "record",
    [*sorted(EXAMPLES.glob("*-*.json")), EXAMPLES / "clip.json", EXAMPLES / "siglip.json"],
    ids=lambda path: path.stem,
)
def test_every_other_example_has_the_quality_of_its_record(madtp, record) -> None:
    """On 100 test samples; retrieval may be better than recorded, because there are fewer images to choose from."""
    recorded, checkpoint = json.loads(record.read_text("utf-8")), checkpoint_of(record)
    done = madtp("eval", checkpoint, "--limit", 100, "--json", "-q")
    assert done.exit_code == 0, done.stderr
    quality = json.loads(done.stdout)["quality"]
    assert quality["value"] > 0.85 * recorded[quality["metric"]]
    files = [checkpoint] if checkpoint.is_file() else checkpoint.iterdir()
    assert sum(file.stat().st_size for file in files) < LARGEST


@pytest.mark.parametrize("source", [*sorted(EXAMPLES.glob("*.pt")), EXAMPLES / "siglip"], ids=lambda path: path.stem)
def test_every_example_can_be_compressed_in_bfloat16(madtp, tmp_path, monkeypatch, source) -> None:
    """Cached targets and tokens must be converted to bfloat16; the weights are saved in the source's float16."""
    monkeypatch.setattr(timing, "SECONDS", 0.0)
    options = ["--gflops-budget", 0.6, "--steps", 2, "--limit", 16, "--batch-size", 4, "--dtype", "bfloat16"]
    done = madtp("compress", source, *options, "--output", tmp_path / "out", "--json", "-q")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["latency"]["dtype"], report["settings"]["steps"]) == ("bfloat16", 2)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118  no mapping


def test_every_line_of_the_ablation_meets_the_budget(capsys) -> None:
    """Lines at different cost could not be compared."""
    ablation.main(["--samples", "24", "--gflops-budget", "0.4"])
    dense, *lines = capsys.readouterr().out.splitlines()
    assert "of 24 validation pairs" in dense
    assert len(lines) == len(ablation.VARIANTS)
    shares = [float(match[1]) for line in lines if (match := re.search(r"at (\d\.\d+)", line))]
    assert len(shares) == len(lines)
    assert all(abs(share - 0.4) < 0.02 for share in shares)


def test_a_results_row_has_the_figures_of_its_report() -> None:
    """The number of steps comes from the report, because the page may show an older run."""
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
            interval95=Interval(low=-2, high=0),
        ),
        settings={"steps": 120},
    )
    row = [cell.strip() for cell in results.table_row("vqa", "0.2", report).strip("|").split("|")]
    assert row == [
        results.ROWS["vqa"][0], "0.2", "120", "-0.50%", "0.198", "VQA accuracy", "70.00", "69.00",
        "-1.00 (-2.00 to +0.00)", "2,000",
    ]  # fmt: skip


def test_the_results_page_has_every_row_and_budget() -> None:
    """On every row of the page, the budget is met within one percent."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    by_row = {(row[0], row[1]): row for row in rows if len(row) == 10 and re.fullmatch(r"0\.\d", row[1])}
    budgets = [*results.BUDGETS, results.LOWEST]
    assert by_row.keys() == {(title, budget) for title, *_ in results.ROWS.values() for budget in budgets}
    assert all(abs(float(row[3].rstrip("%"))) <= 1 for row in by_row.values())


def test_the_results_page_has_a_line_of_three_seeds_for_every_row_and_budget() -> None:
    """The first seed is that of the table of the rows. A line can say that its seeds are not measured yet."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    assert seeds.INTRODUCTION in page
    number, measured = r"[+-][\d.]+(?: %)?", 0
    for title, *_ in results.ROWS.values():
        for budget in results.BUDGETS:
            start = re.escape(f"| {title} | {budget} |")
            if re.search(rf"^{start} \| \| \| not measured \|$", page, re.MULTILINE):
                continue
            line = re.search(rf"^{start} ({number}) \| {number} \| {number} \| {number} \(.*\) \|$", page, re.MULTILINE)
            assert line is not None, f"{title} at {budget}"
            assert re.search(rf"^{start} .* \| {re.escape(line[1])} \([^|]* \| [\d,]+ \|$", page, re.MULTILINE)
            measured += 1
    assert measured >= len(results.BUDGETS)


def test_the_results_page_has_every_image_encoder_and_budget() -> None:
    """Each line has a cosine, six percentages and 1,000 images."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    assert encoder_table.INTRODUCTION in page
    for title, _ in encoder_table.ENCODERS.values():
        for budget in results.BUDGETS:
            line = re.search(rf"^\| {re.escape(title)} \| {budget} \| (.*) \| 1,000 \|$", page, re.MULTILINE)
            assert line is not None
            assert len(re.findall(r"[\d.]+ \([\d.]+ to [\d.]+\)", line[1])) == 6


def test_the_results_page_has_the_words_of_its_script() -> None:
    """The page takes hours to make, so a change of the explanations is also made in the page by hand."""
    page = (EXAMPLES / "results.md").read_text("utf-8")
    assert page.startswith(results.INTRODUCTION)
    assert results.ARCHITECTURES_INTRODUCTION in page
    for architecture, (published, counts) in results.PUBLISHED.items():
        assert re.search(rf"\| {architecture} \| [\d.]+ \| {published} \| {re.escape(counts)} \|", page)
