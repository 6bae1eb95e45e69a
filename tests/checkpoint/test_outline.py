"""The size of a checkpoint is read from its files without torch, to announce a time before torch is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from madtp_cli.checkpoint.outline import Outline, outline

TENSORS = {"a": torch.zeros(2, 3), "b": torch.zeros(5), "c": torch.zeros(1)}


def test_tensors_of_a_torch_file_are_counted(tmp_path) -> None:
    """They are entries of a zip file."""
    file = tmp_path / "model.pth"
    torch.save({"model": TENSORS}, file)
    assert outline(file) == Outline(3, file.stat().st_size, 0)


def test_a_pruned_folder_tells_its_blocks(tmp_path) -> None:
    """Blocks with a scale of zero are not pruned; a file of metadata is no tensor."""
    save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    config = {"madtp": {"scales": {"text": [0.0, 0.0], "vision": [1.0, 0.0, 0.5]}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert outline(tmp_path) == Outline(3, (tmp_path / "model.safetensors").stat().st_size, 2)


def test_a_folder_with_a_torch_file_is_counted(tmp_path) -> None:
    """A config of another program prunes nothing."""
    torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    found = outline(tmp_path)
    assert found is not None
    assert (found.tensors, found.pruned_blocks) == (3, 0)


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 20, b"\x05\0\0\0\0\0\0\0{bad}"])
@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_a_broken_file_is_left_to_its_reader(content, name, tmp_path) -> None:
    """The error of the reader is better than one about an estimate."""
    (tmp_path / name).write_bytes(content)
    assert outline(tmp_path / name) is None


def test_a_missing_file_is_left_to_its_reader(tmp_path: Path) -> None:
    """The same."""
    assert outline(tmp_path / "missing.pt") is None
