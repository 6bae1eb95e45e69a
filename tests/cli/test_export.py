"""The command `export`: it writes one checked file, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from madtp_cli import exporters
from madtp_cli.exporters import _tracing, torch_export


@pytest.fixture
def fake_format(monkeypatch) -> None:
    """Replace a format by one that writes a text file at once and whose outputs are all zero."""

    def runner(file: Path):
        assert file.read_text() == "graph"
        return lambda inputs: {"logits": torch.zeros(len(inputs["input_ids"]), 2)}

    monkeypatch.setattr(_tracing, "traced", lambda model: None)
    monkeypatch.setattr(torch_export, "write", lambda program, file: file.write_text("graph"))
    monkeypatch.setattr(torch_export, "runner", runner)


def test_export_writes_a_checked_file(madtp, checkpoint, tmp_path) -> None:
    """The document describes the file, and the file runs."""
    file = tmp_path / "blip.pt2"
    done = madtp("export", checkpoint, file, "--format", "torch-export", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["schema_version"] == 1
    assert report["size"] == file.stat().st_size
    assert report["inputs"]["input_ids"] == ["samples", "tokens"]
    assert report["checked"]["difference"] <= report["checked"]["tolerance"] == 1e-4
    assert sorted(tmp_path.iterdir()) == [file]
    assert torch.export.load(file).module()(**torch_inputs())["logits"].shape == (1, 2)


def torch_inputs() -> dict[str, torch.Tensor]:
    """Return one pair of black images and three tokens."""
    words = torch.ones(1, 3, dtype=torch.long)
    return {"pixel_values": torch.zeros(1, 2, 3, 96, 96), "input_ids": words, "attention_mask": words}


def test_a_file_that_fails_its_check_is_removed(madtp, checkpoint, tmp_path, fake_format) -> None:
    """Nobody can deploy a file with other outputs by accident; exit code 5."""
    done = madtp("export", checkpoint, tmp_path / "blip.pt2", "--format", "torch-export")
    assert done.exit_code == 5, done.output
    assert "logits differs" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_failed_file_does_not_replace_an_earlier_one(madtp, checkpoint, tmp_path, fake_format) -> None:
    """The earlier file stays until a new one passes its check."""
    file = tmp_path / "blip.pt2"
    file.write_text("earlier")
    assert madtp("export", checkpoint, file, "--format", "torch-export", "--overwrite").exit_code == 5
    assert file.read_text() == "earlier"


@pytest.mark.parametrize(
    ("name", "options", "code", "message"),
    [
        ("there.pt2", ("--format", "torch-export"), 6, "replace it with --overwrite"),
        ("no/blip.onnx", (), 6, "Make it first"),
        ("folder.onnx", ("--overwrite",), 6, "is a folder"),
        ("blip.onnx", ("--format", "torch-export"), 2, "blip.pt2"),
        ("blip", (), 2, "blip.onnx"),
        ("blip.onnx", ("--format", "tflite"), 2, "onnx, torch-export"),
    ],
)
def test_an_impossible_file_is_refused_at_once(madtp, checkpoint, tmp_path, name, options, code, message) -> None:
    """Before minutes of tracing; the message says what to do."""
    (tmp_path / "there.pt2").write_text("earlier")
    (tmp_path / "folder.onnx").mkdir()
    done = madtp("export", checkpoint, tmp_path / name, *options)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_the_result_is_readable_on_a_terminal(madtp, checkpoint, tmp_path, fake_format, monkeypatch) -> None:
    """It lists inputs, outputs and the check with its tolerance; the file extension selects the format."""
    shapes = {"input_ids": ["samples", "tokens"]}, {"logits": ["samples", 2]}
    checked = exporters.Checked(9, (1, 3, 5), (2, 20), (4, 30), 2e-6)
    monkeypatch.setattr(_tracing, "shapes", lambda program: shapes)
    monkeypatch.setattr(exporters._checking, "check", lambda model, run: checked)
    printed = madtp("export", checkpoint, tmp_path / "blip.pt2").stdout
    assert "task nlvr2, format torch-export" in printed
    assert "input_ids [samples, tokens]" in printed
    assert "Images keep 4 to 30 tokens." in printed
    assert "2.0e-06 (tolerance 0.0001)" in printed
