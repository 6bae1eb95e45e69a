"""Data people have, read into rows: each layout is one file in `readers`, recognised by its shape.

A reader has three names. `LAYOUT` says in a few words what it reads; `recognises(path, task)`
looks at the beginning of files and never at their names; `read(path, task, splits)` gives a
`Dataset` or raises a `DataError` that names the file, the row and the remedy. A reader of a shape
that many things have sets `GENERAL = True`: it is asked only where no other reader fits.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol, cast

from madtp_cli.data import answers, arrow, images, readers, records
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.errors import DataError
from madtp_cli.scenes.generator import SPLITS

__all__ = ["SPLITS", "TASKS", "Dataset", "Reader", "Row", "existing", "fitting", "layouts", "read", "unfit"]

#: What data can be read for: the tasks whose rows `Row` describes.
TASKS = ("nlvr2", "vqa", "caption", "retrieval")


class Reader(Protocol):
    """What a file in `readers` offers."""

    LAYOUT: str

    def recognises(self, path: Path, task: str) -> bool:
        """Whether this file or folder has the reader's shape and rows for the task."""
        ...

    def read(self, path: Path, task: str, splits: Collection[str], image_root: Path | None = None) -> Dataset:
        """Read the splits that are asked for and there."""
        ...


def layouts() -> list[Reader]:
    """Every reader there is."""
    names = sorted(module.name for module in pkgutil.iter_modules(readers.__path__))
    return [cast(Reader, importlib.import_module(f"{readers.__name__}.{name}")) for name in names]


def fitting(path: Path, task: str) -> list[Reader]:
    """The readers that recognise a file or folder; general ones only where no other does."""
    found = [reader for reader in layouts() if reader.recognises(path, task)]
    return [reader for reader in found if not getattr(reader, "GENERAL", False)] or found


def read(
    path: Path | None,
    task: str,
    splits: Collection[str] = SPLITS,
    image_root: Path | None = None,
    *,
    missing_ok: bool = False,
) -> Dataset:
    """Read a data set, or take the built-in scenes where there is no path.

    Images are found, not opened. Without a validation split one is set aside from train,
    the same one every time, and a note says so.

    Args:
        path: A folder, one annotation file, or the name of a cached Hugging Face data set; None for the built-in
            scenes.
        task: What the rows are for, such as "nlvr2".
        splits: Only these are read, so that missing train images do not stop a test.
        image_root: Folder of the images, if they do not lie around `path`.
        missing_ok: Images that are not there become `Absent` instead of an error.

    Raises:
        DataError: The path is no data set, or something in it is missing or wrong.
        UsageError: The built-in scenes have no such task.
    """
    if path is None:
        from madtp_cli.scenes import splits as built_in

        return built_in.read(task, splits)
    path = existing(path, image_root)
    try:
        found = fitting(path, task)
        if len(found) != 1:
            raise unfit(path, [task])
        dataset = found[0].read(path, task, splits, image_root)
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be read: {error.strerror}.\nCheck its permissions."
        ) from error
    if not missing_ok:
        images.refuse_missing(dataset)
    return dataset


def existing(path: Path, image_root: Path | None = None) -> Path:
    """The file or folder that is meant: itself, or the place of a cached Hugging Face data set of that name.

    Raises:
        DataError: There is neither, or no folder for the images.
    """
    if image_root is not None and not image_root.is_dir():
        raise DataError(f"There is no folder {image_root}.\nGive --image-root the folder that holds the images.")
    found = path if path.exists() else arrow.cached(str(path))
    if found is None:
        raise DataError(
            f"There is no file or folder {path}.\nGive the folder that holds the annotations and the images."
        )
    return found


def unfit(path: Path, tasks: Sequence[str]) -> DataError:
    """The error for a path that not exactly one reader recognises for any of these tasks."""
    found = [reader for task in tasks for reader in fitting(path, task)]
    if found:
        several = " and ".join(dict.fromkeys(reader.LAYOUT for reader in found))
        return DataError(f"{path} holds both {several}.\nMove one of them away, or give one annotation file.")
    known = ", ".join(reader.LAYOUT for reader in layouts())
    files = [file for file in records.files(path) if file.suffix in (".json", ".jsonl")]
    files = [file for file in files if file.name != answers.ANSWER_LIST]
    broken = next((fault for file in files if (fault := records.fault(file))), None)
    return DataError(
        f"{path} holds no annotations for {' or '.join(tasks)} in a known layout ({known}).\n"
        + (f"This may be why: {broken}" if broken else "Give the folder with the annotation files, or one such file.")
    )
