"""The benchmark script as a whole, with a small model."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from examples import bench_speed
from examples.bench import cases, layer_parts, training_steps
from madtp_cli.evaluation import timing


def test_the_script_ends_at_once_without_matplotlib(monkeypatch) -> None:
    """It must not end after hours of timing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"-m pip install matplotlib"):
        bench_speed.main(["--batch-sizes", "1"])


@pytest.fixture
def few_cases(small_blip, monkeypatch) -> None:
    """Reduce the benchmark to a few small cases on the CPU."""
    monkeypatch.setattr(cases, "GROWTH", {"batch": (1,), "image": (48, 64), "text": (6,)})
    monkeypatch.setattr(cases, "TRAIN_SAMPLES", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(timing, "peak_memory", lambda *_: 3e6)  # the memory profiler takes longer than all other steps


def arguments(folder: Path, *batch_sizes: str) -> list[str]:
    """Return the command line of a short run that writes into a folder."""
    options = ["--grow", "--train", "--budgets", "0.5", "--dtypes", "float32", "bfloat16", "--turns", "1"]
    return [*options, "--batch-sizes", *batch_sizes, "--folder", str(folder / "records"), "--output", str(folder)]


def cells(text: str) -> list[list[str]]:
    """Return the cells of each line of a Markdown page."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_the_script_writes_page_and_figure(few_cases, monkeypatch, tmp_path) -> None:
    """A run with --recorded writes the same page without timing anything."""
    bench_speed.main(arguments(tmp_path, "2"))
    text = (tmp_path / "bench.md").read_text("utf-8")
    check_page(text)
    assert (tmp_path / "bench.png").stat().st_size > 10_000
    assert len(list((tmp_path / "records").iterdir())) == 9
    monkeypatch.setattr(timing, "in_turns", lambda *_: pytest.fail("--recorded must not time anything"))
    bench_speed.main([*arguments(tmp_path, "2", "8"), "--recorded"])
    assert (tmp_path / "bench.md").read_text("utf-8") == text


def check_page(text: str) -> None:
    """Check that a page has all rows of the small benchmark."""
    lines = cells(text)
    timed = [line for line in lines if line[0] == "cpu"]
    assert [line[:4] for line in timed] == [["cpu", dtype, "2", "0.5"] for dtype in ("float32", "bfloat16")]
    assert all(all(line) for line in timed)
    assert [line[2] for line in lines if line[0] == "cuda" and not any(line[4:])] == ["32", "128"]
    assert "No GPU was available" in text
    tokens = [line for line in lines if len(line) == 2 and "±" in line[1]]
    assert [line[0] for line in tokens] == 2 * ["before block 1", "1", "2", "3"]
    assert all(line[1] != "10 ± 0 (10 to 10)" for line in tokens)  # nine patches and [CLS]
    assert [line[0] for line in lines if len(line) == 6 and line[0].isdigit()] == ["1", "48", "64", "6"]
    assert "median of 1 runs" in text
    assert "Median of 1 steps" in text
    steps = [line[0] for line in lines if line[0].startswith(("dense model,", "budget 0.5,"))]
    assert steps == 2 * [training_steps.DENSE, *(f"budget 0.5, {kind}" for kind in training_steps.PRUNED)]


def test_a_page_without_any_record_is_not_written(small_blip, tmp_path) -> None:
    """An empty page would replace an existing one."""
    with pytest.raises(SystemExit, match="without --recorded"):
        bench_speed.main(["--recorded", "--folder", str(tmp_path / "none"), "--output", str(tmp_path)])
    assert not (tmp_path / "bench.md").exists()


def test_the_parts_of_a_small_model_are_printed(small_blip, capsys) -> None:
    """Every part of the layer has a row, and pruning takes time."""
    bench_speed.main(["--parts", "--dtypes", "float32", "--turns", "1"])
    printed = capsys.readouterr().out
    own_parts = ("projections", "attention", "feed-forward", "layer norms", *layer_parts.PRUNING)
    for part in own_parts:
        assert f"| {part} |" in printed
    share = re.search(r"pruning takes ([\d.]+)% of a dense layer", printed)
    assert share
    assert float(share[1]) > 0
