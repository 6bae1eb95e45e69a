"""Parquet files: their columns, rows and embedded images. Reading them needs the package `pyarrow`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.data.files import require_regular
from madtp_cli.data.image_sources import EmbeddedImage
from madtp_cli.errors import DataError, install_command

#: The first bytes of a Parquet file.
MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetImage(EmbeddedImage):
    """The image in one row of a row group. A process keeps the images of the last row groups in memory.

    Args:
        file: The Parquet file.
        column: Name of the column.
        group: Number of the row group, from 0.
        row: Number of the row in its group, from 0.
    """

    file: Path
    column: str
    group: int
    row: int

    def __str__(self) -> str:
        return f"{self.column} of row {self.row + 1} of row group {self.group + 1} in {self.file}"

    def read(self) -> bytes:
        """Read the encoded image.

        Raises:
            OSError: The row has no image.
        """
        value = _images(self.file, self.column, self.group)[self.row].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise OSError("the row holds no image, or only its path")
        return bytes(content)


def is_parquet(file: Path) -> bool:
    """Return whether a file begins like a Parquet file."""
    require_regular(file)
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def columns(file: Path) -> tuple[list[str], list[str]]:
    """Return the names of all columns, and of those that hold encoded images.

    Raises:
        DataError: The package `pyarrow` is not installed, or the file is broken.
    """
    schema = _open(file).schema_arrow
    types = importlib.import_module("pyarrow").types
    names = [field.name for field in schema]
    return names, [field.name for field in schema if _holds_bytes(field.type, types)]


def _holds_bytes(kind: Any, types: Any) -> bool:
    """Whether a column is bytes, or `{"bytes": ..., "path": ...}` as Hugging Face writes images."""
    if types.is_struct(kind):
        return any(part.name == "bytes" for part in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; images are not loaded.

    Raises:
        DataError: As for `columns`.
    """
    names, images = columns(file)
    opened = _open(file)
    texts = [name for name in names if name not in images]
    for group in range(opened.num_row_groups):
        try:
            of_group = opened.read_row_group(group, columns=texts).to_pylist()
        except (OSError, ValueError) as error:
            raise _broken(file, error) from error
        for row in range(opened.metadata.row_group(group).num_rows):
            of_row = of_group[row] if texts else {}
            yield {**of_row, **{name: ParquetImage(file, name, group, row) for name in images}}


def _open(file: Path) -> Any:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            f"{file} is a Parquet file, and the package that reads it is not installed.\n"
            f"Install it: {install_command('pyarrow')}"
        ) from error
    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise _broken(file, error) from error


def _broken(file: Path, error: Exception) -> DataError:
    reason = str(error).strip().split("\n")[0]
    return DataError(f"{file} is no complete Parquet file: {reason}.\nDownload or write it again.")


@functools.lru_cache(maxsize=4)
def _images(file: Path, column: str, group: int) -> Any:
    return _open(file).read_row_group(group, columns=[column]).column(column)
