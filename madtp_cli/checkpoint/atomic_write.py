"""Write output files and folders completely or not at all.

The output is written to a temporary folder next to its final path, flushed to the disk, and then moved to the final
path. An existing output stays until then. If writing fails, nothing is left behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from madtp_cli.errors import OutputError

#: Text in config.json of every folder that madtp wrote: the beginning of its model type.
MADTP_MODEL_TYPE = '"model_type": "madtp_'
#: With more files than this, the whole disk is flushed at once. One flush takes milliseconds, so flushing a large
#: data set file by file would take minutes.
MAX_FILE_FLUSHES = 100

#: Returns why an existing folder must not be replaced, or None if it may be.
ReplaceRule = Callable[[Path], str | None]


def only_madtp_checkpoints(folder: Path) -> str | None:
    """Allow to replace a folder only if madtp wrote it."""
    config = folder / "config.json"
    if config.is_file() and MADTP_MODEL_TYPE in config.read_text("utf-8", errors="replace"):
        return None
    return "madtp did not write its content"


def check_output_folder(
    folder: Path, overwrite: bool = False, replace_rule: ReplaceRule = only_madtp_checkpoints
) -> None:
    """Check before a long run that its result can be saved to a folder.

    Args:
        folder: The output folder; its parent must exist.
        overwrite: Allow to replace the whole folder, if `replace_rule` allows it too.
        replace_rule: Decides whether an existing folder may be replaced.

    Raises:
        OutputError: The folder is not empty and must not be replaced, it is a file, its parent does not exist, or it
            cannot be written.
    """
    folder = Path(folder)
    with write_errors_as_output_error(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, but the output is a folder.\nChoose another path.")
        _check_parent(folder)
        if folder.is_dir() and any(folder.iterdir()):
            _check_replaceable(folder, overwrite, replace_rule)
        _check_writable(folder)


def _check_replaceable(folder: Path, overwrite: bool, replace_rule: ReplaceRule) -> None:
    if not overwrite:
        raise OutputError(f"{folder} exists and is not empty.\nChoose another path, or replace it with --overwrite.")
    if reason := replace_rule(folder):
        raise OutputError(f"{folder} is not replaced: {reason}.\nChoose another path.")


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise OutputError(f"There is no folder {path.parent} for the output {path.name}.\nCreate it first.")


def _check_writable(path: Path) -> None:
    """Create a folder for a test, since permissions do not show that a disk is read-only."""
    test_folder = _temporary_folder(path, "test")
    test_folder.mkdir()
    test_folder.rmdir()


@contextlib.contextmanager
def write_folder(
    folder: Path, overwrite: bool = False, replace_rule: ReplaceRule = only_madtp_checkpoints
) -> Iterator[Path]:
    """Yield an empty folder that is moved to `folder` when the block ends without an error.

    Args:
        folder: The output folder; its parent must exist.
        overwrite: Allow to replace the whole folder, if `replace_rule` allows it too.
        replace_rule: Decides whether an existing folder may be replaced.

    Raises:
        OutputError: As in `check_output_folder`, or writing failed.
    """
    check_output_folder(folder, overwrite, replace_rule)
    new = _temporary_folder(folder, "new")
    try:
        with write_errors_as_output_error(folder):
            new.mkdir()
            yield new
            _set_usual_permissions(new)
            _flush(new)
            _move_to_final_path(new, folder.resolve())
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_output_file(file: Path, overwrite: bool = False) -> None:
    """Check before a long run that its result can be written to a file.

    Args:
        file: The output file; its folder must exist.
        overwrite: Allow to replace an existing file.

    Raises:
        OutputError: The file exists and must not be replaced, it is a folder, its folder does not exist, or it cannot
            be written.
    """
    file = Path(file)
    with write_errors_as_output_error(file):
        if file.is_dir():
            raise OutputError(f"{file} is a folder, but the output is a file.\nChoose another name.")
        _check_parent(file)
        if file.exists() and not overwrite:
            raise OutputError(f"{file} exists.\nChoose another name, or replace it with --overwrite.")
        _check_writable(file)


@contextlib.contextmanager
def write_file(file: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path for a file that is moved to `file` when the block ends without an error.

    Further files that are written next to the yielded path are moved as well.

    Args:
        file: The output file; its folder must exist.
        overwrite: Allow to replace an existing file.

    Raises:
        OutputError: As in `check_output_file`, or writing failed.
    """
    file = Path(file)
    check_output_file(file, overwrite)
    new = _temporary_folder(file, "new")
    try:
        with write_errors_as_output_error(file):
            new.mkdir()
            yield new / file.name
            _set_usual_permissions(new)
            _flush(new)
            for part in sorted(new.iterdir(), key=lambda part: part.name == file.name):  # the file itself comes last
                part.replace(file.resolve().with_name(part.name))
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def write_errors_as_output_error(path: Path) -> Iterator[None]:
    """Raise an OutputError that names `path` instead of an OSError."""
    try:
        yield
    except OSError as error:
        advice = "Free some space, or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose"
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.\n{advice} another path.") from error


def _temporary_folder(path: Path, purpose: str) -> Path:
    """Return a hidden path next to the output, on the same file system, unique to this process."""
    path = path.resolve()
    return path.with_name(f".{path.name}.{purpose}-{os.getpid()}")


def _set_usual_permissions(folder: Path) -> None:
    """Give the files the permissions of new files; safetensors makes them readable for the owner alone."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~umask)


def _flush(folder: Path) -> None:
    paths = [*folder.rglob("*"), folder]
    if len(paths) > MAX_FILE_FLUSHES:
        os.sync()
        return
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_to_final_path(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
        return
    old = _temporary_folder(folder, "old")
    folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:  # also on Ctrl-C between the two moves
        old.rename(folder)
        raise
    shutil.rmtree(old)
