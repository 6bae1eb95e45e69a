"""Output folders and files, written whole or not at all.

A folder is made beside its place, flushed to the disk and moved there; whatever was there
before stays until then, and nothing is left behind when writing fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from madtp_cli.errors import OutputError

#: What config.json of every folder that madtp wrote contains: its model type.
MARK = '"model_type": "madtp_'
#: Above so many files the whole disk is flushed at once: one by one takes milliseconds each, minutes for a data set.
MOST_FLUSHES = 100

#: Says why what a folder holds is not to be replaced, or None if it is.
Foreign = Callable[[Path], str | None]


def no_checkpoint(folder: Path) -> str | None:
    """A checkpoint folder is replaced only if madtp wrote it."""
    config = folder / "config.json"
    if config.is_file() and MARK in config.read_text("utf-8", errors="replace"):
        return None
    return "madtp did not write what it holds"


def check_output(folder: Path, overwrite: bool = False, foreign: Foreign = no_checkpoint) -> None:
    """Fail before a long run if its result could not be saved to `folder`.

    Args:
        folder: Where to; its parent must exist.
        overwrite: Replace what is there, the whole folder, unless it is `foreign`.
        foreign: Why it is not to be replaced even so.

    Raises:
        OutputError: It is not empty (without `overwrite`), is no folder, is not ours to
            overwrite, or its parent is missing or cannot be written to.
    """
    folder = Path(folder)
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; the output is a folder.\nChoose another place.")
        if not folder.parent.is_dir():
            raise OutputError(f"There is no folder {folder.parent} to put {folder.name} in.\nMake it first.")
        if folder.is_dir() and any(folder.iterdir()):
            _require_replaceable(folder, overwrite, foreign)
        trial = _beside(folder, "trial")
        trial.mkdir()
        trial.rmdir()


def _require_replaceable(folder: Path, overwrite: bool, foreign: Foreign) -> None:
    if not overwrite:
        raise OutputError(f"{folder} exists and is not empty.\nChoose another place, or replace it with --overwrite.")
    if reason := foreign(folder):
        raise OutputError(f"{folder} is not replaced: {reason}.\nChoose another place.")


@contextlib.contextmanager
def write_whole(folder: Path, overwrite: bool = False, foreign: Foreign = no_checkpoint) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends without an error.

    Arguments as for `check_output`.

    Raises:
        OutputError: The folder cannot be written, or is not to be replaced.
    """
    check_output(folder, overwrite, foreign)
    new = _beside(folder, "new")
    try:
        with writing(folder):
            new.mkdir()
            yield new
            _open_to_others(new)
            _flush(new)
            _move_into_place(new, folder.resolve())
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_file(file: Path, overwrite: bool = False) -> None:
    """Fail before a long run if its result could not be written to the file.

    Raises:
        OutputError: It exists (without `overwrite`), is a folder, or its parent is missing or cannot be written to.
    """
    file = Path(file)
    with writing(file):
        if file.is_dir():
            raise OutputError(f"{file} is a folder; the output is a file.\nChoose another name.")
        if not file.parent.is_dir():
            raise OutputError(f"There is no folder {file.parent} to put {file.name} in.\nMake it first.")
        if file.exists() and not overwrite:
            raise OutputError(f"{file} exists.\nChoose another name, or replace it with --overwrite.")
        trial = _beside(file, "trial")
        trial.mkdir()
        trial.rmdir()


@contextlib.contextmanager
def write_file(file: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a place to write a file to that becomes `file` when the block ends without an error.

    What is written beside it moves along. Arguments and errors as for `check_file`.
    """
    file = Path(file)
    check_file(file, overwrite)
    new = _beside(file, "new")
    try:
        with writing(file):
            new.mkdir()
            yield new / file.name
            _open_to_others(new)
            _flush(new)
            for part in sorted(new.iterdir(), key=lambda part: part.name == file.name):  # the file itself last
                part.replace(file.resolve().with_name(part.name))
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system reports into an OutputError."""
    try:
        yield
    except OSError as error:
        advice = "Make room, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose"
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}.\n{advice} another place.") from error


def _beside(folder: Path, purpose: str) -> Path:
    """A hidden neighbour on the same file system, unique to this process."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.{purpose}-{os.getpid()}")


def _open_to_others(folder: Path) -> None:
    """As readable as any new file is; safetensors writes for its owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def _flush(folder: Path) -> None:
    paths = [*folder.rglob("*"), folder]
    if len(paths) > MOST_FLUSHES:
        os.sync()
        return
    for path in paths:
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
    except BaseException:  # Ctrl-C between the two as well
        old.rename(folder)
        raise
    shutil.rmtree(old)
