"""TorchScript archives, read for their tensors alone."""

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
    """An object whose unpickling makes a folder."""

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
    """torch.jit.load is the witness here; it would also compile whatever code is in the file."""
    source = read(golden / "clip_a/archive.pt")
    witness = torch.jit.load(golden / "clip_a/archive.pt").state_dict()
    assert source.container == "torchscript"
    assert source.weights.keys() == witness.keys()
    for key, value in witness.items():
        assert value.dtype == source.weights[key].dtype
        assert torch.equal(value, source.weights[key]), key


class _Scripted(nn.Module):
    """Attributes of every kind that a scripted module may have beside its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 2, padding=1)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.LayerNorm(4)])
        self.again = self.blocks[0]
        self.register_buffer("count", torch.tensor(5))
        self.turned = nn.Parameter(torch.randn(3, 2).t())
        self.words, self.sizes, self.place = ["a"], {"a": 1}, torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        return self.again(x.to(self.place)) + self.sizes["a"] + len(self.words)


def test_a_scripted_modules_other_attributes_do_not_matter(tmp_path: Path) -> None:
    """Published archives have typed lists, devices and shared modules among their tensors."""
    torch.jit.script(_Scripted()).save(tmp_path / "module.pt")
    witness = torch.jit.load(tmp_path / "module.pt").state_dict()
    weights = read(tmp_path / "module.pt").weights
    assert weights.keys() == witness.keys()
    for key, value in witness.items():
        assert torch.equal(value, weights[key]), key


def test_without_values_an_archives_tensors_have_shapes_only(golden: Path) -> None:
    """`inspect` answers for a file larger than the memory."""
    with_values = read(golden / "clip_a/archive.pt").weights
    for key, value in read(golden / "clip_a/archive.pt", values=False).weights.items():
        assert (value.device.type, value.shape, value.dtype) == ("meta", with_values[key].shape, with_values[key].dtype)


def test_code_in_an_archive_is_not_run(tmp_path: Path) -> None:
    """An archive is a pickle too."""
    archive = _archive(tmp_path / "evil.pt", pickle.dumps(_Code(tmp_path / "made")))
    with pytest.raises(CheckpointError, match=r"evil\.pt contains code \(\w+\.mkdir\).*it was not run"):
        read(archive)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("data", [b"", b"\x80\x02", pickle.dumps(3)])
def test_an_archive_that_is_no_module_says_so(tmp_path: Path, data: bytes) -> None:
    """The reader's own errors speak of opcodes and attributes."""
    with pytest.raises(CheckpointError, match=r"clip\.pt is a TorchScript archive that is damaged or no module's"):
        read(_archive(tmp_path / "clip.pt", data))


def test_a_truncated_archive_is_said_to_be_cut_off(golden: Path, tmp_path: Path) -> None:
    """A zip file's index is at its end, so half a file is not even known to be an archive."""
    whole = (golden / "clip_a/archive.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        read(tmp_path / "half.pt")
