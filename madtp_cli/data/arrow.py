"""Hugging Face data sets on this disk: what `save_to_disk` writes, and what `load_dataset` leaves in its cache.

What such a folder holds is read off its JSON files. Its rows need the package `datasets`, an optional extra;
nothing is ever downloaded.
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

from madtp_cli.data.embedded import Embedded
from madtp_cli.errors import DataError

_ARROW = re.compile(r"(?:.+-)?(\w+?)(?:-\d{5}-of-\d{5})?\.arrow")


@dataclass(frozen=True)
class StoredImage(Embedded):
    """The image in one row and column of a data set; each process opens the data set once."""

    folder: Path
    split: str
    column: str
    row: int

    def __str__(self) -> str:
        where = f"{self.split} row" if self.split else "row"
        return f"{self.column} of {where} {self.row + 1} in {self.folder}"

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            OSError: It is not there, or in a file outside the data set's folder.
        """
        value = _column(self.folder, self.split, self.column)[self.row][self.column] or {}
        if value.get("bytes") is not None:
            return bytes(value["bytes"])
        path = Path(value.get("path") or "nothing")
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise OSError(f"the data set holds only its path, {path}, which leaves the data folder")
        return path.read_bytes()


def features(folder: Path) -> dict[str, Any]:
    """The columns of a data set and their types as its JSON files say; none if it is no data set."""
    files = [*folder.glob("dataset_info.json"), *sorted(folder.glob("*/dataset_info.json"))]
    if not files or not (_is_saved(folder) or any(folder.glob("*.arrow"))):
        return {}
    try:
        found = json.loads(files[0].read_text("utf-8"))["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def is_image(feature: object) -> bool:
    """Whether a column of this type holds images."""
    return isinstance(feature, dict) and feature.get("_type") == "Image"


def opened(folder: Path) -> Mapping[str, Any]:
    """The tables of a data set by the name of their split; "" if it has only one, without a name.

    Raises:
        DataError: The package `datasets` is not installed, or cannot read the folder.
    """
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{folder} is a Hugging Face data set, and the package that reads it is not installed.\n"
            "Install it: pip install 'madtp[datasets]'"
        ) from error
    try:
        if _is_saved(folder):
            found = library.load_from_disk(str(folder))
            return dict(found) if isinstance(found, dict) else {str(found.split or ""): found}
        parts: dict[str, list[Any]] = {}
        for file in sorted(folder.glob("*.arrow")):
            if name := _ARROW.fullmatch(file.name):
                parts.setdefault(name[1], []).append(library.Dataset.from_file(str(file)))
        return {split: library.concatenate_datasets(tables) for split, tables in parts.items()}
    except (OSError, ValueError, LookupError) as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{folder} cannot be read by datasets: {reason}.\nFetch or write it again.") from error


def encoded(table: Any, column: str) -> Any:
    """One image column of a table, its images not decoded."""
    image = importlib.import_module("datasets").Image
    return table.select_columns([column]).cast_column(column, image(decode=False))


@functools.lru_cache(maxsize=8)
def _column(folder: Path, split: str, column: str) -> Any:
    return encoded(opened(folder)[split], column)


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def cached(name: str) -> Path | None:
    """The folder of a data set, such as "owner/name", in the cache that `datasets` keeps; None if it has none.

    Raises:
        DataError: It has several versions or configurations.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or not re.search(r"\w", name):
        return None
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    if not cache.is_dir():
        return None
    # The cache writes "Owner/My-Name" as "owner___my-name" or "Owner___my_name", depending on its version.
    plain = _plain(name)
    folders = [folder for folder in cache.iterdir() if _plain(folder.name) == plain]
    found = sorted({file.parent for folder in folders for file in folder.glob("*/*/*/dataset_info.json")})
    if len(found) > 1:
        raise DataError(
            f"{name} is in the cache {len(found)} times: {found[0]}, {found[1]}{' and others' if found[2:] else ''}.\n"
            "Give the folder that is meant."
        )
    return found[0] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9/]", "", name.lower().replace("___", "/"))
