"""Files that are no checkpoints, or dangerous ones."""

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
    """An object whose unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """Some tensors, large enough that half a file is cut within them."""
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
    """A checkpoint from the internet is the usual way to run a stranger's code."""
    write({"model": _Code(tmp_path / "made")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth contains code \(\w+\.mkdir\).*it was not run"):
        read(tmp_path / "evil.pth", values=values)
    assert not (tmp_path / "made").exists()


def test_a_training_scripts_options_are_no_code(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Many scripts save their argparse.Namespace beside the weights; it only holds values."""
    torch.save({"model": weights, "args": argparse.Namespace(lr=1.0)}, tmp_path / "a.pth")
    assert read(tmp_path / "a.pth").extras["args"].lr == 1.0


@pytest.mark.parametrize("write", [_torch_zip, _torch_legacy])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_said_to_be_cut_off(
    tmp_path: Path, weights: dict[str, torch.Tensor], write: Any, share: float
) -> None:
    """A broken download is the commonest fault of all."""
    write({"model": weights}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"damaged or cut off(?s:.)*Download"):
        read(tmp_path / "a.pth")


def test_a_truncated_safetensors_file_is_said_to_be_cut_off(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Its reader has its own exception."""
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
        (pickle.dumps({"a": 1}), "not a checkpoint that torch.save wrote"),
        (b"\x80\x02" + bytes(range(200)), "not a checkpoint that torch.save wrote"),
    ],
)
def test_a_file_of_another_kind_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    """Each with its own remedy, in three lines at most."""
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as raised:
        read(tmp_path / "a.pth")
    assert len(str(raised.value).splitlines()) <= 3
    assert "a.pth" in str(raised.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    """With the place it was looked for, since a relative path is often meant from elsewhere."""
    with pytest.raises(CheckpointError, match=r"no file or folder .*nowhere\.pth(?s:.)*Check the path"):
        read(tmp_path / "nowhere.pth")


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    """Such as the folder that the checkpoint lies in."""
    with pytest.raises(CheckpointError, match=r"without config\.json"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_broken_config_is_named(tmp_path: Path, text: str) -> None:
    """Not a JSON error without a file name."""
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read(tmp_path)


@pytest.mark.parametrize("content", [{}, {"model": {}}, [torch.zeros(2)], torch.zeros(2), {"epoch": 3}])
def test_a_pickle_without_a_state_dict_says_what_is_expected(tmp_path: Path, content: Any) -> None:
    """Optimizer states and single tensors are saved by torch.save too."""
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read(tmp_path / "a.pth")


def test_without_values_nothing_is_allocated(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    """`inspect` answers for a file larger than the memory."""
    torch.save({"model": weights}, tmp_path / "a.pth")
    found = read(tmp_path / "a.pth", values=False).weights
    assert {key: (value.shape, value.device.type) for key, value in found.items()} == {
        "a": (torch.Size([5000]), "meta"),
        "b": (torch.Size([3]), "meta"),
    }


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "model-1.safetensors"}}, r"lacks model-1\.safetensors"),
        ({"weight_map": {"a": "../model.safetensors"}}, "no file of its folder"),
        ({"metadata": {}}, "does not say where the weights are"),
    ],
)
def test_an_index_of_weights_must_name_files_of_its_folder(tmp_path: Path, index: Any, message: str) -> None:
    """It comes from a stranger, and a shard may not have been copied."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path)


def test_a_model_of_the_hub_is_read_from_the_cache(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name there; nothing is downloaded."""
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


def test_a_file_that_is_missing_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """runs/blip.pth has the form of the hub's names, but nobody calls a model so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no file or folder runs/blip\.pth\.\nCheck the path"):
        read(Path("runs/blip.pth"))
