"""Read a checkpoint file or folder into a `Source`, without running code from it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.checkpoint.formats import Source
from madtp_cli.checkpoint.locating import locate
from madtp_cli.checkpoint.pickles import is_torchscript, read_torchscript, truncation_error, unpickle
from madtp_cli.errors import CheckpointError

#: Keys under which training scripts store the state dict.
WRAPPERS = ("model", "state_dict")

#: Prefixes that data-parallel training and torch.compile add to every key.
PREFIX = re.compile(r"^((module|_orig_mod)\.)+")

#: Files with the weights of a folder, the safest first. An index lists several files.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

#: First bytes of files that are often given by mistake, and what to do.
COMMON_MISTAKES = {
    b"version https://git-lfs": "It is a Git LFS pointer: get the file itself with git lfs pull.",
    b"<": "It looks like a web page: the download did not give the file. Download it again.",
}


def read(path: Path, *, values: bool = True) -> Source:
    """Read a checkpoint.

    Args:
        path: A .pth, .pt or .safetensors file, a folder with config.json, or the hub name of a model in the local
            cache.
        values: False if only keys, shapes and types are needed. Pickled tensors are then on the meta device.

    Raises:
        CheckpointError: There is nothing to read, the file is damaged, or it contains code.
    """
    try:
        path = locate(path)
        return _read_folder(path, values) if path.is_dir() else _read_file(path, values)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}.\nCheck its permissions and the disk."
        ) from error


def _read_folder(folder: Path, values: bool) -> Source:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{folder} is a folder without config.json, so it is not a checkpoint folder.\n"
            "Give a folder that madtp or transformers wrote, or a checkpoint file."
        )
    content = _read_json(config)
    weights_file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights_file is None:
        return Source(folder, "folder", {}, config=content)
    files = _listed_files(weights_file) if weights_file.suffix == ".json" else [weights_file]
    weights = {key: value for file in files for key, value in _read_file(file, values).weights.items()}
    return Source(folder, "folder", weights, config=content)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}).\nCopy or download the folder again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} does not contain settings by name.\nCopy or download the folder again.")
    return content


def _listed_files(index: Path) -> list[Path]:
    """Return the files that an index lists; each must be in the folder of the index."""
    file_of_key = _read_json(index).get("weight_map")
    if not isinstance(file_of_key, dict) or not file_of_key:
        raise CheckpointError(f"{index} does not list the files of the weights.\nCopy or download the folder again.")
    names = sorted({str(name) for name in file_of_key.values()})
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} lists {name}, which is outside its folder.\nDo not trust this folder.")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent} has no file {name}, which {index.name} lists.\nCopy it there.")
    return [index.parent / name for name in names]


def _read_file(path: Path, values: bool) -> Source:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes).\nDownload or copy it again.")
    if start[8:9] == b"{":
        return Source(path, "safetensors", _read_safetensors(path))
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise truncation_error(path)
        if is_torchscript(path):
            return Source(path, "torchscript", read_torchscript(path, values))
    elif not start.startswith(b"\x80"):
        advice = next((text for begin, text in COMMON_MISTAKES.items() if start.startswith(begin)), "Check the path.")
        raise CheckpointError(f"{path} is not a checkpoint: it begins with {start[:12]!r}.\n{advice}")
    weights, extras = _state_dict(path, unpickle(path, values))
    return Source(path, "pickle", weights, extras)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut off ({error}).\nDownload or copy it again.") from error


def _state_dict(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state dict without prefixes, and what else the file contains."""
    extras: dict[str, Any] = {}
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            extras |= {key: value for key, value in content.items() if key != wrapper}
            content = content[wrapper]
    if isinstance(content, Mapping):
        weights = {PREFIX.sub("", str(key)): value for key, value in content.items() if isinstance(value, Tensor)}
        if weights:
            return weights, extras
    raise CheckpointError(
        f"{path} contains no state dict, but a value of type {type(content).__name__}.\n"
        "Give a file with named tensors, at the top level or under the key 'model' or 'state_dict'."
    )
