"""`madtp export`: it writes one file that passed its check, or no file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from madtp_cli.exporters import _checking, _tracing, torch_export
from madtp_cli.reporting.export_parts import CountRange, ExportCheck


@pytest.fixture
def untraced(monkeypatch) -> None:
    """Replaces tracing, which takes long: the file contains the word "graph", and its outputs are zeros."""

    def runner(file: Path):
        assert file.read_text() == "graph"
        return lambda inputs: {"logits": torch.zeros(len(inputs["input_ids"]), 2)}

    monkeypatch.setattr(_tracing, "trace", lambda model: None)
    monkeypatch.setattr(torch_export, "write", lambda program, file: file.write_text("graph"))
    monkeypatch.setattr(torch_export, "runner", runner)


def test_a_checkpoint_is_written_and_checked(madtp, checkpoint, tmp_path) -> None:
    """The report of the command describes the file."""
    file = tmp_path / "blip.pt2"
    done = madtp("export", checkpoint, file, "--format", "torch-export", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["schema_version"] == 1
    assert report["size_bytes"] == file.stat().st_size
    assert report["inputs"]["input_ids"] == ["samples", "tokens"]
    assert report["check"]["max_difference"] <= report["check"]["tolerance"] == 1e-4
    assert sorted(tmp_path.iterdir()) == [file]
    assert torch.export.load(file).module()(**torch_inputs())["logits"].shape == (1, 2)


def torch_inputs() -> dict[str, torch.Tensor]:
    """Return one pair of black images and a text of three tokens."""
    words = torch.ones(1, 3, dtype=torch.long)
    return {"pixel_values": torch.zeros(1, 2, 3, 96, 96), "input_ids": words, "attention_mask": words}


@pytest.mark.parametrize("option", ["--weights", "--activation", "--match-token", "--head-width"])
def test_a_wrong_setting_is_a_usage_error_in_a_plan_too(madtp, option) -> None:
    """The plan and the export read the same settings, also from variables, before the checkpoint is loaded."""
    Path("blip.pt").touch()
    words, variable = ("export", "blip.pt", "blip.pt2"), "MADTP_" + option[2:].upper().replace("-", "_")
    plan, real = madtp(*words, option, "?", "--dry-run"), madtp(*words, option, "?")
    assert (plan.exit_code, plan.stdout) == (2, "")
    assert plan.stderr == real.stderr
    assert madtp(*words, env={variable: "?"}).stderr.startswith(f"Error: {variable}: '?' cannot be used")


def test_a_file_that_fails_its_check_is_deleted(madtp, checkpoint, tmp_path, untraced) -> None:
    """Nobody may deploy a file with wrong outputs by accident. A failed check has its own exit code."""
    done = madtp("export", checkpoint, tmp_path / "blip.pt2", "--format", "torch-export")
    assert done.exit_code == 5, done.output
    assert "logits differs" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_its_check_replaces_no_file(madtp, checkpoint, tmp_path, untraced) -> None:
    """The old file stays until the new one has passed its check."""
    file = tmp_path / "blip.pt2"
    file.write_text("earlier")
    assert madtp("export", checkpoint, file, "--format", "torch-export", "--overwrite").exit_code == 5
    assert file.read_text() == "earlier"


@pytest.mark.parametrize(
    ("name", "words", "code", "message"),
    [
        ("there.pt2", ("--format", "torch-export"), 6, "replace it with --overwrite"),
        ("there.pt2/blip.onnx", (), 6, "cannot be written"),
        ("folder.onnx", ("--overwrite",), 6, "is a folder"),
        ("blip.onnx", ("--format", "torch-export"), 2, "blip.pt2"),
        ("blip", (), 2, "blip.onnx"),
        ("blip.onnx", ("--format", "tflite"), 2, "onnx, torch-export"),
    ],
)
def test_an_invalid_output_is_refused_before_tracing(madtp, checkpoint, tmp_path, name, words, code, message) -> None:
    """Tracing takes minutes. The message says what to do."""
    (tmp_path / "there.pt2").write_text("earlier")
    (tmp_path / "folder.onnx").mkdir()
    done = madtp("export", checkpoint, tmp_path / name, *words)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_the_text_for_a_terminal(madtp, checkpoint, tmp_path, untraced, monkeypatch) -> None:
    """It has inputs, outputs and the result of the check. The ending of the file name selects the format."""
    shapes = {"input_ids": ["samples", "tokens"]}, {"logits": ["samples", 2]}
    check = ExportCheck(samples=9, batch_sizes=(1, 3, 5), text_tokens=CountRange(least=2, most=20),
                        kept_image_tokens=CountRange(least=4, most=30),
                        max_difference=2e-6, tolerance=1e-4)  # fmt: skip
    monkeypatch.setattr(_tracing, "input_and_output_shapes", lambda program: shapes)
    monkeypatch.setattr(_checking, "compare_outputs", lambda model, run: check)
    text = madtp("export", checkpoint, tmp_path / "blip.pt2").stdout
    assert "task nlvr2, format torch-export" in text
    assert "input_ids [samples, tokens]" in text
    assert "Images keep 4 to 30 tokens" in text
    assert "2.0e-06 (tolerance 0.0001)" in text
