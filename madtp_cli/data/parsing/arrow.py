"""Hugging Face data sets on this disk: what `save_to_disk` writes, and what `load_dataset` leaves in its cache.

The JSON files of such a folder describe its columns. Reading its rows needs the package `datasets`, an optional extra.
Nothing is downloaded.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.data.files import require_regular
from madtp_cli.data.image_sources import EmbeddedImage
from madtp_cli.errors import DataError, install_command

_ARROW_FILE = re.compile(r"(?:.+-)?(\w+?)(?:-\d{5}-of-\d{5})?\.arrow")


@dataclass(frozen=True)
class StoredImage(EmbeddedImage):
    """The image in one row and column of a data set. Each process opens the data set once.

    Args:
        folder: The data set.
        split: Name of the split as the data set calls it; empty if it has only one table without a name.
        column: Name of the column.
        row: Number of the row, from 0.
    """

    folder: Path
    split: str
    column: str
    row: int

    def __str__(self) -> str:
        where = f"{self.split} row" if self.split else "row"
        return f"{self.column} of {where} {self.row + 1} in {self.folder}"

    def read(self) -> bytes:
        """Read the encoded image.

        Raises:
            OSError: It is missing, or in a file outside the folder of the data set.
        """
        value = _undecoded_column(self.folder, self.split, self.column)[self.row][self.column] or {}
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        path = Path(value.get("path") or "nothing")
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise OSError(f"the data set holds only its path, {path}, which leaves the data folder")
        require_regular(path)
        return path.read_bytes()


def features(folder: Path) -> dict[str, Any]:
    """Return the columns of a data set and their types from its JSON files; empty if the folder is not a data set."""
    files = [*folder.glob("dataset_info.json"), *sorted(folder.glob("*/dataset_info.json"))]
    if not files or not (_is_saved(folder) or any(folder.glob("*.arrow"))):
        return {}
    try:
        types = json.loads(files[0].read_text("utf-8"))["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    return types if isinstance(types, dict) else {}


def is_image(feature: object) -> bool:
    """Return whether a column of this type holds images."""
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def open_tables(folder: Path) -> Mapping[str, Any]:
    """Return the tables of a data set by the name of their split; "" for a single table without a name.

    Raises:
        DataError: The package `datasets` is not installed, or cannot read the folder.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{folder} is a Hugging Face data set, and the package that reads it is not installed.\n"
            f"Install it: {install_command('datasets')}"
        ) from error
    try:
        return _saved_tables(datasets, folder) if _is_saved(folder) else _cached_tables(datasets, folder)
    except (OSError, ValueError, LookupError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{folder} cannot be read by datasets: {reason}.\nDownload or write it again.") from error


def _saved_tables(datasets: Any, folder: Path) -> dict[str, Any]:
    saved = datasets.load_from_disk(str(folder))
    return dict(saved) if isinstance(saved, dict) else {str(saved.split or ""): saved}


def _cached_tables(datasets: Any, folder: Path) -> dict[str, Any]:
    parts: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("*.arrow")):
        if name := _ARROW_FILE.fullmatch(file.name):
            parts.setdefault(name[1], []).append(datasets.Dataset.from_file(str(file)))
    return {split: datasets.concatenate_datasets(tables) for split, tables in parts.items()}


@functools.lru_cache(maxsize=8)
def _undecoded_column(folder: Path, split: str, column: str) -> Any:
    """One image column of a table, whose images stay encoded."""
    image = importlib.import_module("datasets").Image
    return open_tables(folder)[split].select_columns([column]).cast_column(column, image(decode=False))


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def find_cached(name: str) -> Path | None:
    """Return the folder of a data set such as "owner/name" in the cache of `datasets`, or None.

    Raises:
        DataError: The cache has several versions or configurations of it.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or not re.search(r"\w", name):
        return None
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    if not cache.is_dir():
        return None
    # The cache writes "Owner/My-Name" as "owner___my-name" or "Owner___my_name", depending on its version.
    folders = [folder for folder in cache.iterdir() if _comparable(folder.name) == _comparable(name)]
    versions = sorted({file.parent for folder in folders for file in folder.glob("*/*/*/dataset_info.json")})
    if len(versions) > 1:
        more = " and others" if versions[2:] else ""
        raise DataError(
            f"{name} is in the cache {len(versions)} times: {versions[0]}, {versions[1]}{more}.\n"
            "Give the path of one of these folders."
        )
    return versions[0] if versions else None


def _comparable(name: str) -> str:
    return re.sub(r"[^a-z0-9/]", "", name.lower().replace("___", "/"))
