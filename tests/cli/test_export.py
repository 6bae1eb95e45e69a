"""`madtp export` as its users meet it: one file that was checked, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from madtp_cli import exporters
from madtp_cli.exporters import _tracing, torch_export


@pytest.fixture
def untraced(monkeypatch) -> None:
    """A format that writes a note at once, and whose file answers whatever was asked with zeros."""

    def runner(file: Path):
        assert file.read_text() == "graph"
        return lambda inputs: {"logits": torch.zeros(len(inputs["input_ids"]), 2)}

    monkeypatch.setattr(_tracing, "traced", lambda model: None)
    monkeypatch.setattr(torch_export, "write", lambda program, file: file.write_text("graph"))
    monkeypatch.setattr(torch_export, "runner", runner)


def test_a_checkpoint_becomes_a_file_that_was_checked(madtp, checkpoint, tmp_path) -> None:
    """The whole command: what it says is what is there."""
    file = tmp_path / "blip.pt2"
    done = madtp("export", checkpoint, file, "--format", "torch-export", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["schema_version"] == 1
    assert told["size"] == file.stat().st_size
    assert told["inputs"]["input_ids"] == ["samples", "tokens"]
    assert told["checked"]["difference"] <= told["checked"]["tolerance"] == 1e-4
    assert sorted(tmp_path.iterdir()) == [file]
    assert torch.export.load(file).module()(**torch_inputs())["logits"].shape == (1, 2)


def torch_inputs() -> dict[str, torch.Tensor]:
    """One pair of black images and three words."""
    words = torch.ones(1, 3, dtype=torch.long)
    return {"pixel_values": torch.zeros(1, 2, 3, 96, 96), "input_ids": words, "attention_mask": words}


def test_a_file_that_fails_its_check_is_not_left_behind(madtp, checkpoint, tmp_path, untraced) -> None:
    """Nobody deploys by accident what gives other answers; a gate that failed has its own code."""
    done = madtp("export", checkpoint, tmp_path / "blip.pt2", "--format", "torch-export")
    assert done.exit_code == 5, done.output
    assert "logits differs" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_failed_does_not_replace_one_that_passed(madtp, checkpoint, tmp_path, untraced) -> None:
    """What was there stays until something better is."""
    file = tmp_path / "blip.pt2"
    file.write_text("earlier")
    assert madtp("export", checkpoint, file, "--format", "torch-export", "--overwrite").exit_code == 5
    assert file.read_text() == "earlier"


@pytest.mark.parametrize(
    ("name", "words", "code", "message"),
    [
        ("there.pt2", ("--format", "torch-export"), 6, "replace it with --overwrite"),
        ("no/blip.onnx", (), 6, "Make it first"),
        ("folder.onnx", ("--overwrite",), 6, "is a folder"),
        ("blip.onnx", ("--format", "torch-export"), 2, "blip.pt2"),
        ("blip", (), 2, "blip.onnx"),
        ("blip.onnx", ("--format", "tflite"), 2, "onnx, torch-export"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(madtp, checkpoint, tmp_path, name, words, code, message) -> None:
    """Before minutes of tracing, with what to do instead."""
    (tmp_path / "there.pt2").write_text("earlier")
    (tmp_path / "folder.onnx").mkdir()
    done = madtp("export", checkpoint, tmp_path / name, *words)
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3


def test_what_the_file_is_reads_on_a_terminal(madtp, checkpoint, tmp_path, untraced, monkeypatch) -> None:
    """Inputs, outputs and what the check measured, with its limit; the file's name says its format."""
    shapes = {"input_ids": ["samples", "tokens"]}, {"logits": ["samples", 2]}
    checked = exporters.Checked(9, (1, 3, 5), (2, 20), (4, 30), 2e-6)
    monkeypatch.setattr(_tracing, "shapes", lambda program: shapes)
    monkeypatch.setattr(exporters._checking, "check", lambda model, run: checked)
    said = madtp("export", checkpoint, tmp_path / "blip.pt2").stdout
    assert "nlvr2 as torch-export" in said
    assert "input_ids [samples, tokens]" in said
    assert "4 to 30 tokens left of an image" in said
    assert "at most 2.0e-06 (0.0001 is allowed)" in said
