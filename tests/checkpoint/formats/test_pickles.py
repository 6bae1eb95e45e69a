"""Only the tensors of TorchScript archives are read."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from madtp_cli.checkpoint.reading import read
from madtp_cli.errors import CheckpointError


class _Code:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def _archive(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip/code/__torch__.py", "")
        archive.writestr("clip/data.pkl", data)
    return path


def test_an_archive_has_the_tensors_that_torch_reads(golden: Path) -> None:
    """torch.jit.load is the reference. It would also compile the code in the file."""
    source = read(golden / "clip_a/archive.pt")
    expected = torch.jit.load(golden / "clip_a/archive.pt").state_dict()
    assert source.container == "torchscript"
    assert source.weights.keys() == expected.keys()
    for key, value in expected.items():
        assert value.dtype == source.weights[key].dtype
        assert torch.equal(value, source.weights[key]), key


class _Scripted(nn.Module):
    """A scripted module with attributes of every kind besides its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 2, padding=1)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])
        self.again = self.blocks[0]
        self.register_buffer("count", torch.tensor(5))
        self.turned = nn.Parameter(torch.randn(3, 2).t())
        self.words, self.sizes, self.where = ["a"], {"a": 1}, torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return self.again(x.to(self.where)) + self.sizes["a"] + len(self.words)


def test_other_attributes_of_a_scripted_module_are_ignored(tmp_path: Path) -> None:
    """Published archives contain typed lists, devices and shared modules."""
    torch.jit.script(_Scripted()).save(tmp_path / "module.pt")
    expected = torch.jit.load(tmp_path / "module.pt").state_dict()
    weights = read(tmp_path / "module.pt").weights
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(value, weights[key]), key


def test_without_values_tensors_of_an_archive_have_only_shapes(golden: Path) -> None:
    """So `inspect` can describe a file that is larger than the memory."""
    with_values = read(golden / "clip_a/archive.pt").weights
    for key, value in read(golden / "clip_a/archive.pt", values=False).weights.items():
        assert (value.device.type, value.shape, value.dtype) == ("meta", with_values[key].shape, with_values[key].dtype)


def test_code_in_an_archive_is_not_run(tmp_path: Path) -> None:
    """An archive contains a pickle, which could contain code."""
    archive = _archive(tmp_path / "evil.pt", pickle.dumps(_Code(tmp_path / "made")))
    with pytest.raises(CheckpointError, match=r"evil\.pt contains code \(\w+\.mkdir\).*code was not run"):
        read(archive)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x02", pickle.dumps(3)])
def test_an_archive_without_a_module_is_an_error(tmp_path: Path, data: bytes) -> None:
    """The errors of the unpickler are about opcodes and attributes, which helps no user."""
    with pytest.raises(CheckpointError, match=r"clip\.pt is a TorchScript archive that is damaged"):
        read(_archive(tmp_path / "clip.pt", data))


def test_the_error_for_a_truncated_archive_says_so(golden: Path, tmp_path: Path) -> None:
    """The index of a zip file is at its end, so half a file is not recognised as an archive."""
    whole = (golden / "clip_a/archive.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        read(tmp_path / "half.pt")
