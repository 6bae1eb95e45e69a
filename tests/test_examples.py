"""The example checkpoint is what its record says, and the scripts beside it run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from examples import ablation

EXAMPLES = Path(__file__).parent.parent / "examples"


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


def test_the_ablation_meets_the_budget_in_every_line(capsys) -> None:
    """Else its lines would not compare at equal cost."""
    ablation.main(["--samples", "24", "--gflops-budget", "0.4"])
    dense, *lines = capsys.readouterr().out.splitlines()
    assert "of 24 validation pairs" in dense
    assert len(lines) == len(ablation.WITHOUT)
    shares = [float(found[1]) for line in lines if (found := re.search(r"at (\d\.\d+)", line))]
    assert len(shares) == len(lines)
    assert all(abs(share - 0.4) < 0.02 for share in shares)
