"""Reading: files that are damaged, dangerous, or not checkpoints."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError


class _Code:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """Tensors that are large enough to be cut when the file is halved."""
    return {"a": torch.arange(5000.0), "b": torch.ones(3)}


def _torch_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def _torch_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _plain_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [_torch_zip, _torch_legacy, _plain_pickle])
@pytest.mark.parametrize("values", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, write: Any, values: bool) -> None:
    """Checkpoints from the internet may contain harmful code."""
    write({"model": _Code(tmp_path / "made")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth contains code \(\w+\.mkdir\).*code was not run"):
        read(tmp_path / "evil.pth", values=values)
    assert not (tmp_path / "made").exists()


def test_the_options_of_a_training_script_are_not_code(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Many scripts save their argparse.Namespace with the weights; it contains only values."""
    torch.save({"model": weights, "args": argparse.Namespace(lr=1.0)}, tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").extras["args"].lr == 1.0


@pytest.mark.parametrize("write", [_torch_zip, _torch_legacy])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_the_error_for_a_truncated_file_says_so(
    tmp_path: Path, weights: dict[str, torch.Tensor], write: Any, share: float
) -> None:
    """Interrupted downloads are common."""
    write({"model": weights}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"damaged or cut off(?s:.)*Download"):
        read(tmp_path / "a.pth")


def test_the_error_for_a_truncated_safetensors_file_says_so(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    """safetensors raises an exception of its own."""
    save_file(weights, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        read(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello world, this is a text\n" * 9, r"is not a checkpoint: it begins with b'hello world,'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "looks like a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "is not a checkpoint"),
        (pickle.dumps({"a": 1}), "was not written by torch.save"),
        (b"\x80\x02" + bytes(range(200)), "was not written by torch.save"),
    ],
)
def test_the_error_for_another_kind_of_file_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    """Each message has its own remedy, and at most three lines."""
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        read(tmp_path / "a.pth")
    assert len(str(raised.value).splitlines()) <= 3
    assert "a.pth" in str(raised.value)


def test_the_error_for_a_missing_file_names_the_current_folder(tmp_path: Path) -> None:
    """Relative paths are often meant from another folder."""
    with pytest.raises(CheckpointError, match=r"no file or folder .*nowhere\.pth(?s:.)*Check the path"):
        read(tmp_path / "nowhere.pth")


def test_a_folder_without_config_is_not_a_checkpoint(tmp_path: Path) -> None:
    """Users may give the folder that contains the checkpoint file."""
    with pytest.raises(CheckpointError, match=r"without config\.json"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_the_error_for_an_invalid_config_names_the_file(tmp_path: Path, text: str) -> None:
    """The errors of the JSON reader have no file name."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read(tmp_path)


@pytest.mark.parametrize("content", [{}, {"model": {}}, [torch.zeros(2)], torch.zeros(2), {"epoch": 3}])
def test_a_pickle_without_a_state_dict_is_an_error(tmp_path: Path, content: Any) -> None:
    """Optimizer states and single tensors are saved with torch.save too."""
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="contains no state dict"):
        read(tmp_path / "a.pth")


def test_without_values_nothing_is_allocated(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    """So `inspect` can describe a file that is larger than the memory."""
    torch.save({"model": weights}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth", values=False).weights
    assert {key: (value.shape, value.device.type) for key, value in found.items()} == {
        "a": (torch.Size([5000]), "meta"),
        "b": (torch.Size([3]), "meta"),
    }


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "model-1.safetensors"}}, r"no file model-1\.safetensors"),
        ({"weight_map": {"a": "../model.safetensors"}}, "outside its folder"),
        ({"metadata": {}}, "does not list the files"),
    ],
)
def test_an_index_must_list_files_of_its_folder(tmp_path: Path, index: Any, message: str) -> None:
    """The folder may come from a stranger, and a file may be missing."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_hub_model_is_read_from_the_cache(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given by its name; nothing is downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "cache/models--Owner--blip-vqa"
    snapshot = model / "snapshots/0123abcd"
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs/main").write_text("0123abcd")
    (snapshot / "config.json").write_text('{"model_type": "blip"}')
    save_file(weights, snapshot / "model.safetensors")
    found = read(Path("Owner/blip-vqa"))
    assert (found.path, found.config, found.weights.keys()) == (snapshot, {"model_type": "blip"}, weights.keys())
    with pytest.raises(CheckpointError, match=r"no model of that name in the(?s:.)*hf download Owner/other") as raised:
        read(Path("Owner/other"))
    assert len(str(raised.value).splitlines()) <= 3


def test_a_missing_file_is_not_taken_for_a_hub_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runs/blip.pth has the form of a hub name, but its ending shows that it is a file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no file or folder runs/blip\.pth\.\nCheck the path"):
        read(Path("runs/blip.pth"))
