"""Output folders, written whole or not at all.

A folder is made beside its place, flushed to the disk and moved there; whatever was there
before stays until then, and nothing is left behind when writing fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from madtp_cli.errors import OutputError

#: What config.json of every folder that madtp wrote contains: its model type.
MARK = '"model_type": "madtp_'


def check_output(folder: Path, overwrite: bool = False) -> None:
    """Fail before a long run if its result could not be saved to `folder`.

    Raises:
        OutputError: It is not empty (without `overwrite`), is no folder, is not ours to
            overwrite, or its parent is missing or cannot be written to.
    """
    folder = Path(folder)
    with _writing(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; the output is a folder.\nChoose another with -o.")
        if not folder.parent.is_dir():
            raise OutputError(f"There is no folder {folder.parent} to put {folder.name} in.\nMake it first.")
        if folder.is_dir() and any(folder.iterdir()):
            _require_replaceable(folder, overwrite)
        trial = _beside(folder, "trial")
        trial.mkdir()
        trial.rmdir()


def _require_replaceable(folder: Path, overwrite: bool) -> None:
    """Overwriting replaces the whole folder, so it must be one that madtp wrote."""
    if not overwrite:
        raise OutputError(f"{folder} exists and is not empty.\nChoose another with -o, or replace it with --overwrite.")
    config = folder / "config.json"
    if not config.is_file() or MARK not in config.read_text("utf-8", errors="replace"):
        raise OutputError(f"{folder} is not replaced: madtp did not write what it holds.\nChoose another with -o.")


@contextlib.contextmanager
def write_whole(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends without an error.

    Raises:
        OutputError: The folder cannot be written, or is not to be replaced.
    """
    check_output(folder, overwrite)
    new = _beside(folder, "new")
    try:
        with _writing(folder):
            new.mkdir()
            yield new
            _flush(new)
            _move_into_place(new, folder.resolve())
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the file system reports into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written: {error.strerror or error}.\nMake room, or choose another with -o."
        ) from error


def _beside(folder: Path, purpose: str) -> Path:
    """A hidden neighbour on the same file system, unique to this process."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.{purpose}-{os.getpid()}")


def _flush(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_into_place(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        return
    old = _beside(folder, "old")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)
