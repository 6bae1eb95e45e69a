"""Reads a file or folder into a `Source` without running anything that is in it."""

from __future__ import annotations

import argparse
import json
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from madtp_cli.errors import CheckpointError
from madtp_cli.formats import Source

#: Keys under which training scripts put the state dict.
WRAPPERS = ("model", "state_dict")

#: What data-parallel training and torch.compile put before every key.
PREFIX = re.compile(r"^((module|_orig_mod)\.)+")

#: How files begin that are often taken for a checkpoint, and what to do about them.
MISTAKEN = {
    b"version https://git-lfs": "It is a Git LFS pointer: fetch the file itself with git lfs pull.",
    b"<": "It looks like a web page: the download did not give the file. Download it again.",
}


def read(path: Path, *, values: bool = True) -> Source:
    """Read a checkpoint.

    Args:
        path: A .pth or .pt file, a .safetensors file, or a folder with config.json.
        values: False if only keys, shapes and types are wanted; pickled tensors are then on the meta device.

    Raises:
        CheckpointError: There is nothing to read there, or it would run code.
    """
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.is_file():
            raise CheckpointError(f"There is no file or folder {path}.\nCheck the path; it is taken from {Path.cwd()}.")
        return _read_file(path, values)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read_folder(folder: Path) -> Source:
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(
            f"{folder} is a folder without config.json, hence no checkpoint folder.\n"
            "Give a folder that madtp wrote, or a checkpoint file."
        )
    try:
        content = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{config} is not valid JSON ({error}).\nMake the folder again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{config} holds no settings.\nMake the folder again.")
    weights = folder / "model.safetensors"
    return Source(folder, "folder", _read_safetensors(weights) if weights.is_file() else {}, config=content)


def _read_file(path: Path, values: bool) -> Source:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f"{path} is empty (0 bytes).\nDownload or copy it again.")
    if start[8:9] == b"{":
        return Source(path, "safetensors", _read_safetensors(path))
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise _cut_off(path)
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                return Source(path, "torchscript", {})
    elif not start.startswith(b"\x80"):
        advice = next((advice for begin, advice in MISTAKEN.items() if start.startswith(begin)), "Check the path.")
        raise CheckpointError(f"{path} is not a checkpoint: it begins with {start[:12]!r}.\n{advice}")
    weights, extras = _unwrap(path, _unpickle(path, values))
    return Source(path, "pickle", weights, extras)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or cut off ({error}).\nDownload or copy it again.") from error


def _unpickle(path: Path, values: bool) -> Any:
    """The pickled object; only tensors, plain containers and argparse's Namespace are let in."""
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # about the pickle protocol of files that are refused below
        try:
            zipped = zipfile.is_zipfile(path)
            where = "cpu" if values else "meta"
            return torch.load(path, map_location=where, weights_only=True, mmap=(zipped and values) or None)
        except OSError:
            raise
        except Exception as error:  # damaged bytes make the unpickler fail in any way
            raise _unpickling_error(path, error) from error


def _unpickling_error(path: Path, error: Exception) -> CheckpointError:
    if name := _code_in(path, str(error)):
        return CheckpointError(
            f"{path} contains code ({name}), which could do anything when read; it was not run.\n"
            "Save only its tensors where it comes from: torch.save({'model': model.state_dict()}, file)."
        )
    if isinstance(error, RuntimeError | EOFError | IndexError | struct.error):
        return _cut_off(path)
    return CheckpointError(f"{path} is not a checkpoint that torch.save wrote, or it is damaged.\nCheck the path.")


def _cut_off(path: Path) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(f"{path} is damaged or cut off: it ends after {size:,} bytes.\nDownload or copy it again.")


def _code_in(path: Path, message: str) -> str | None:
    """The function or class that a refused pickle wanted to use."""
    if match := re.search(r"(?:GLOBAL|class) ([\w.]+)", message):
        return match[1]
    if zipfile.is_zipfile(path):
        return None
    strings: list[str] = []
    try:
        with path.open("rb") as file:
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name in ("GLOBAL", "INST"):
                    return str(argument).replace(" ", ".")
                if opcode.name == "STACK_GLOBAL":
                    return ".".join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
    except ValueError:  # no pickle after all
        return None
    return None


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
