"""Reads tensors out of pickles and TorchScript archives without running anything that is in them."""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from madtp_cli.errors import CheckpointError

#: Names of torch's storages in a TorchScript archive, and what they hold.
STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


def unpickle(path: Path, values: bool) -> Any:
    """The pickled object; only tensors, plain containers and argparse's Namespace are let in.

    Without `values` its tensors are on the meta device.
    """
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


def is_torchscript(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive: such a one has code, which an ordinary checkpoint has not."""
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def unscript(path: Path, values: bool) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by the names of its modules, as in its state dict.

    torch.jit.load would compile the archive's code and can run parts of it; its pickle alone has
    all that is needed. Without `values` the tensors are on the meta device.
    """
    with zipfile.ZipFile(path) as archive:
        try:
            root = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name))
            return dict(_tensors(_ScriptUnpickler(archive, root, values).load()))
        except OSError:
            raise
        except _CodeError as error:
            raise _contains_code(path, str(error)) from error
        except Exception as error:  # as in unpickle
            raise CheckpointError(
                f"{path} is a TorchScript archive that is damaged or no module's ({error!r}).\nDownload it again."
            ) from error


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _untagged(value: Any, _: str) -> Any:
    return value


#: What else a TorchScript archive calls, and what does it here.
HARMLESS = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.jit._pickle.restore_type_tag": _untagged,
    "torch.device": str,
    "collections.OrderedDict": dict,
}


class _CodeError(Exception):
    """A name in a pickle that is no part of a module."""


class _Module:
    """A module of the archive; the unpickler fills in its attributes."""


class _ScriptUnpickler(pickle.Unpickler):
    """Knows modules and tensors, and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, member: str, values: bool) -> None:
        super().__init__(io.BytesIO(archive.read(member)))
        self.archive, self.folder, self.values = archive, member.removesuffix(".pkl"), values
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list  # of numbers or tensors
        if f"{module}.{name}" in HARMLESS:
            return HARMLESS[f"{module}.{name}"]
        raise _CodeError(f"{module}.{name}")

    def persistent_load(self, record: Any) -> Tensor:
        _, dtype, name, _, count = record
        if name not in self.storages:
            self.storages[name] = (
                self._read(name, dtype) if self.values else torch.empty(count, dtype=dtype, device="meta")
            )
        return self.storages[name]

    def _read(self, name: str, dtype: torch.dtype) -> Tensor:
        with self.archive.open(f"{self.folder}/{name}") as file:
            content = bytearray(file.read())
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _tensors(module: _Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")


def _unpickling_error(path: Path, error: Exception) -> CheckpointError:
    if name := _code_in(path, str(error)):
        return _contains_code(path, name)
    if isinstance(error, RuntimeError | EOFError | IndexError | struct.error):
        return cut_off(path)
    return CheckpointError(f"{path} is not a checkpoint that torch.save wrote, or it is damaged.\nCheck the path.")


def _contains_code(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{path} contains code ({name}), which could do anything when read; it was not run.\n"
        "Save only its tensors where it comes from: torch.save({'model': model.state_dict()}, file)."
    )


def cut_off(path: Path) -> CheckpointError:
    """The error of a file that ends too soon."""
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
