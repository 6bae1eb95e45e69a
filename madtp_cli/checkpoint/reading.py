"""Read a checkpoint file or folder into a `Source`, without running code from it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.checkpoint import state_dicts
from madtp_cli.checkpoint.files import exists, read_json, require_regular
from madtp_cli.checkpoint.formats import Source
from madtp_cli.checkpoint.locating import locate
from madtp_cli.checkpoint.pickles import is_torchscript, read_torchscript, truncation_error, unpickle
from madtp_cli.errors import CheckpointError

#: Files with the weights of a folder, the safest first. An index lists several files.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

#: The config of OpenCLIP, and the names of its weights in the order in which OpenCLIP looks for them.
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
)

#: First bytes of files that are often given by mistake, and what to do.
COMMON_MISTAKES = {
    b"version https://git-lfs": "It is a Git LFS pointer: get the file itself with git lfs pull.",
    b"<": "It looks like a web page: the download did not give the file. Download it again.",
}


def read(path: Path, *, values: bool = True, weights: str | None = None) -> Source:
    """Read a checkpoint.

    Args:
        path: A .pth, .pt or .safetensors file, a folder with config.json, or the hub name of a model in the local
            cache.
        values: False if only keys, shapes and types are needed. Pickled tensors are then on the meta device.
        weights: "raw" or "ema": which weights of a file to take that has both.

    Raises:
        CheckpointError: There is nothing to read, the file is damaged, or it contains code.
    """
    try:
        path = locate(path)
        source = _read_folder(path, values, weights) if path.is_dir() else _read_beside_config(path, values, weights)
        _require_backed(source, values)
        return source
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}.\nCheck its permissions and the disk."
        ) from error


def _read_folder(folder: Path, values: bool, choice: str | None) -> Source:
    config, open_clip = folder / "config.json", folder / OPEN_CLIP_CONFIG
    weights_file = next((folder / name for name in WEIGHTS if exists(folder / name)), None)
    of_open_clip = next((folder / name for name in OPEN_CLIP_WEIGHTS if exists(folder / name)), None)
    if exists(open_clip) and of_open_clip and not (exists(config) and weights_file):
        source = _read_file(of_open_clip, values, choice)
        return replace(source, path=folder, container="folder", open_clip=read_json(open_clip))
    if not exists(config):
        raise CheckpointError(
            f"{folder} is a folder without config.json or {OPEN_CLIP_CONFIG}, so it is not a checkpoint folder.\n"
            "Give a folder that madtp, transformers or OpenCLIP wrote, or a checkpoint file."
        )
    content = read_json(config)
    if weights_file is None:
        return Source(folder, "folder", {}, config=content)
    files = _listed_files(weights_file) if weights_file.suffix == ".json" else [weights_file]
    parts = [_read_file(file, values, choice) for file in files]
    weights = {key: value for part in parts for key, value in part.weights.items()}
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return Source(folder, "folder", weights, config=content, notes=tuple(notes))


def _read_beside_config(path: Path, values: bool, choice: str | None) -> Source:
    """Read a file, and the config of OpenCLIP if it is in the same folder."""
    source = _read_file(path, values, choice)
    config = path.with_name(OPEN_CLIP_CONFIG)
    return replace(source, open_clip=read_json(config)) if exists(config) else source


def _require_backed(source: Source, values: bool) -> None:
    """Raise CheckpointError if a tensor claims more bytes than its files have, or is not an ordinary tensor."""
    size = _size(source.path)
    for key, value in source.weights.items():
        if values and value.is_meta:
            raise CheckpointError(
                f"{source.path}: the tensor {key[:100]} has no values (device meta).\nSave the model with its weights."
            )
        if value.layout != torch.strided:
            raise CheckpointError(f"{source.path}: the tensor {key[:100]} is sparse.\nSave dense weights.")
        claimed = value.numel() * value.element_size()
        if claimed > size:
            raise CheckpointError(
                f"{source.path}: the tensor {key[:100]} of shape {list(value.shape)} needs {claimed:,} bytes, "
                f"but the checkpoint has {size:,}.\nThe file is damaged: download or copy it again."
            )


def _size(path: Path) -> int:
    files: Iterable[Path] = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _listed_files(index: Path) -> list[Path]:
    """Return the files that an index lists; each must be in the folder of the index."""
    file_of_key = read_json(index).get("weight_map")
    if not isinstance(file_of_key, dict) or not file_of_key:
        raise CheckpointError(f"{index} does not list the files of the weights.\nCopy or download the folder again.")
    names = sorted({str(name) for name in file_of_key.values()})
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} lists {name}, which is outside its folder.\nDo not trust this folder.")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent} has no file {name}, which {index.name} lists.\nCopy it there.")
    return [index.parent / name for name in names]


def _read_file(path: Path, values: bool, choice: str | None) -> Source:
    require_regular(path)
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes).\nDownload or copy it again.")
    if start[8:9] == b"{":
        weights, extras, notes = state_dicts.find(path, _read_safetensors(path), choice)
        return Source(path, "safetensors", weights, extras, notes=notes)
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise truncation_error(path)
        if is_torchscript(path):
            return Source(path, "torchscript", read_torchscript(path, values))
    elif not start.startswith(b"\x80"):
        advice = next((text for begin, text in COMMON_MISTAKES.items() if start.startswith(begin)), "Check the path.")
        raise CheckpointError(f"{path} is not a checkpoint: it begins with {start[:12]!r}.\n{advice}")
    weights, extras, notes = state_dicts.find(path, unpickle(path, values), choice)
    return Source(path, "pickle", weights, extras, notes=notes)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut off ({error}).\nDownload or copy it again.") from error
