"""Read tensors from pickles and TorchScript archives, without running code from them."""

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

#: Names of torch's storages in a TorchScript archive, and their data types.
STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class _Ignored:
    """Stands for a value next to the weights that is not needed: a number of numpy, or a path."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


#: Functions and classes that a pickle may call; all are replaced by a class that does nothing.
IGNORED = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("_core", "core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.{name}" for name in ("dtype", "ndarray", "float64", "float32", "int64", "int32", "bool_")),
    *(f"numpy.dtypes.{name}DType" for name in ("Float64", "Float32", "Float16", "Int64", "Int32", "Bool", "Str")),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath")),
)


def unpickle(path: Path, values: bool) -> Any:
    """Read a pickle that may contain only tensors, plain containers and `argparse.Namespace`.

    Args:
        path: A file that torch.save wrote.
        values: False to get tensors on the meta device, which have a shape but no memory.

    Raises:
        CheckpointError: The file is damaged, or contains code.
    """
    with warnings.catch_warnings(), torch.serialization.safe_globals(_safe_globals()):
        warnings.simplefilter("ignore")  # torch warns about the pickle protocol of files that are refused below
        try:
            is_zip = zipfile.is_zipfile(path)
            device = "cpu" if values else "meta"
            return torch.load(path, map_location=device, weights_only=True, mmap=(is_zip and values) or None)
        except OSError:
            raise
        except Exception as error:  # damaged bytes can raise any exception in the unpickler
            raise _unpickling_error(path, error) from error


def _safe_globals() -> list[Any]:
    return [argparse.Namespace, *((_Ignored, name) for name in IGNORED)]


def is_torchscript(path: Path) -> bool:
    """Return whether a zip file is a TorchScript archive: it contains code, which an ordinary checkpoint does not."""
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: Path, values: bool) -> dict[str, Tensor]:
    """Read the tensors of a TorchScript archive, under the names of its state dict.

    torch.jit.load would compile the code of the archive and could run parts of it. The pickle in the archive has all
    that is needed, so only the pickle is read.

    Args:
        path: The archive.
        values: False to get tensors on the meta device, which have a shape but no memory.

    Raises:
        CheckpointError: The archive is damaged, or its pickle contains code.
    """
    with zipfile.ZipFile(path) as archive:
        try:
            root = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name))
            return dict(_tensors(_ScriptUnpickler(archive, root, values).load()))
        except OSError:
            raise
        except _CodeError as error:
            raise _code_error(path, str(error)) from error
        except Exception as error:  # as in unpickle
            raise CheckpointError(
                f"{path} is a TorchScript archive that is damaged or does not contain a module ({error!r}).\n"
                "Download it again."
            ) from error


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _without_type_tag(value: Any, _: str) -> Any:
    return value


#: Further functions that the pickle of a TorchScript archive calls, and our harmless replacements.
REPLACEMENTS = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch.jit._pickle.restore_type_tag": _without_type_tag,
    "torch.device": str,
    "collections.OrderedDict": dict,
}


class _CodeError(Exception):
    """A pickle refers to a function or class that is not part of a module."""


class _Module:
    """A module of the archive; the unpickler sets its attributes."""


class _ScriptUnpickler(pickle.Unpickler):
    """An unpickler that creates modules and tensors and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, member: str, values: bool) -> None:
        super().__init__(io.BytesIO(archive.read(member)))
        self.archive, self.folder, self.values = archive, member.removesuffix(".pkl"), values
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the harmless replacement of a function or class; refuse every other one."""
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list  # of numbers or tensors
        if f"{module}.{name}" in REPLACEMENTS:
            return REPLACEMENTS[f"{module}.{name}"]
        raise _CodeError(f"{module}.{name}")

    def persistent_load(self, record: Any) -> Tensor:
        """Return the storage that a record refers to; tensors that share a storage get the same one."""
        _, dtype, name, _, count = record
        if name not in self.storages:
            self.storages[name] = (
                self._read_storage(name, dtype) if self.values else torch.empty(count, dtype=dtype, device="meta")
            )
        return self.storages[name]

    def _read_storage(self, name: str, dtype: torch.dtype) -> Tensor:
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
    if name := _refused_name(path, str(error)):
        return _code_error(path, name)
    if isinstance(error, RuntimeError | EOFError | IndexError | struct.error):
        return truncation_error(path)
    return CheckpointError(f"{path} was not written by torch.save, or it is damaged.\nCheck the path.")


def _code_error(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{path} contains code ({name}), which could do anything. The code was not run.\n"
        "Where the file was made, save only the tensors: torch.save({'model': model.state_dict()}, file)."
    )


def truncation_error(path: Path) -> CheckpointError:
    """Return the error for a file that ends too soon."""
    size = path.stat().st_size
    return CheckpointError(f"{path} is damaged or cut off: it ends after {size:,} bytes.\nDownload or copy it again.")


def _refused_name(path: Path, message: str) -> str | None:
    """Return the function or class that a refused pickle refers to; None if no name is found."""
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
    except ValueError:  # not a pickle
        return None
    return None
