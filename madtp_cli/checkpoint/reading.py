"""Reads a file or folder into a `Source` without running anything that is in it."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.checkpoint.formats import Source
from madtp_cli.checkpoint.pickles import cut_off, is_torchscript, unpickle, unscript
from madtp_cli.errors import CheckpointError

#: Keys under which training scripts put the state dict.
WRAPPERS = ("model", "state_dict")

#: What data-parallel training and torch.compile put before every key.
PREFIX = re.compile(r"^((module|_orig_mod)\.)+")

#: A folder's weights, the safest first; an index names the files that they are spread over.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

#: What the hub calls a model; a file's ending is no part of it.
HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+(?<!\.pth)(?<!\.pt)(?<!\.bin)(?<!\.ckpt)(?<!\.safetensors)")

#: How files begin that are often taken for a checkpoint, and what to do about them.
MISTAKEN = {
    b"version https://git-lfs": "It is a Git LFS pointer: fetch the file itself with git lfs pull.",
    b"<": "It looks like a web page: the download did not give the file. Download it again.",
}


def locate(path: Path) -> Path:
    """The file or folder that is meant: `path`, or the cached folder of a model that the hub has by this name.

    Nothing is downloaded.

    Raises:
        CheckpointError: Neither is there.
    """
    if path.exists():
        return path
    advice = f"Check the path; it is taken from {Path.cwd()}."
    name = path.as_posix()
    if not HUB_NAME.fullmatch(name):
        raise CheckpointError(f"There is no file or folder {path}.\n{advice}")
    try:
        config = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name that the hub would have
        config = None
    if isinstance(config, str):
        return Path(config).parent
    raise CheckpointError(
        f"There is no file or folder {path}, and no model of that name in the Hugging Face cache.\n"
        f"{advice}\nIf the hub has it, get it once with: hf download {name}"
    )


def read(path: Path, *, values: bool = True) -> Source:
    """Read a checkpoint.

    Args:
        path: A .pth or .pt file, a .safetensors file, a folder with config.json, or the hub's name of a
            model in the local cache.
        values: False if only keys, shapes and types are wanted; pickled tensors are then on the meta device.

    Raises:
        CheckpointError: There is nothing to read there, or it would run code.
    """
    try:
        path = locate(path)
        return _read_folder(path, values) if path.is_dir() else _read_file(path, values)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_folder(folder: Path, values: bool) -> Source:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{folder} is a folder without config.json, hence no checkpoint folder.\n"
            "Give a folder that madtp or transformers wrote, or a checkpoint file."
        )
    content = _read_json(config)
    present = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if present is None:
        return Source(folder, "folder", {}, config=content)
    files = _shards(present) if present.suffix == ".json" else [present]
    weights = {key: value for file in files for key, value in _read_file(file, values).weights.items()}
    return Source(folder, "folder", weights, config=content)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}).\nMake the folder again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds no settings.\nMake the folder again.")
    return content


def _shards(index: Path) -> list[Path]:
    """The files that an index spreads the weights over."""
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} does not say where the weights are.\nCopy or download the folder again.")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names {name}, which is no file of its folder.\nDo not trust this folder.")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent} lacks {name}, which {index.name} names.\nCopy it there, too.")
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
            raise cut_off(path)
        if is_torchscript(path):
            return Source(path, "torchscript", unscript(path, values))
    elif not start.startswith(b"\x80"):
        advice = next((advice for begin, advice in MISTAKEN.items() if start.startswith(begin)), "Check the path.")
        raise CheckpointError(f"{path} is not a checkpoint: it begins with {start[:12]!r}.\n{advice}")
    weights, extras = _unwrap(path, unpickle(path, values))
    return Source(path, "pickle", weights, extras)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut off ({error}).\nDownload or copy it again.") from error


def _unwrap(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict without prefixes, and what stood beside it."""
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
        f"{path} holds no state dict, but {type(content).__name__}.\n"
        "Expected are named tensors, alone or under the key 'model' or 'state_dict'."
    )
