"""Write output files and folders completely or not at all.

The output is written to a temporary folder next to its final path, flushed to the disk, and then moved to the final
path. An existing output stays until then. If writing fails, nothing is left behind.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from madtp_cli.errors import OutputError

#: Text in config.json of every folder that madtp wrote: the beginning of its model type.
MADTP_MODEL_TYPE = '"model_type": "madtp_'
#: With more files than this, the whole disk is flushed at once. One flush takes milliseconds, so flushing a large
#: data set file by file would take minutes.
MAX_FILE_FLUSHES = 100

#: What temporary folders next to an output are for: to test the disk, for the new output, and for the one it replaces.
PURPOSES = ("test", "new", "old")

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
        folder: The output folder; missing folders above it are made.
        overwrite: Allow to replace the whole folder, if `replace_rule` allows it too.
        replace_rule: Decides whether an existing folder may be replaced.

    Raises:
        OutputError: The folder is not empty and must not be replaced, it is a file, or it cannot be
            written.
    """
    folder = Path(folder)
    with write_errors_as_output_error(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, but the output is a folder.\nChoose another path.")
        if folder.is_dir() and any(folder.iterdir()):
            _check_replaceable(folder, overwrite, replace_rule)
        _check_writable(folder)


def _check_replaceable(folder: Path, overwrite: bool, replace_rule: ReplaceRule) -> None:
    if not overwrite:
        raise OutputError(f"{folder} exists and is not empty.\nChoose another path, or replace it with --overwrite.")
    if reason := replace_rule(folder):
        raise OutputError(f"{folder} is not replaced: {reason}.\nChoose another path.")


def make_parents(path: Path) -> list[Path]:
    """Make the missing folders above a path, and return them, the innermost first."""
    missing = [folder for folder in path.resolve().parents if not folder.exists()]
    path.resolve().parent.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of some folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check_writable(path: Path) -> None:
    """Create a folder for a test, since permissions do not show that a disk is read-only."""
    made = make_parents(path)
    try:
        test_folder = _temporary_folder(path, "test")
        test_folder.mkdir()
        test_folder.rmdir()
    finally:
        remove_empty(made)


@contextlib.contextmanager
def write_folder(
    folder: Path, overwrite: bool = False, replace_rule: ReplaceRule = only_madtp_checkpoints
) -> Iterator[Path]:
    """Yield an empty folder that is moved to `folder` when the block ends without an error.

    Args:
        folder: The output folder; missing folders above it are made.
        overwrite: Allow to replace the whole folder, if `replace_rule` allows it too.
        replace_rule: Decides whether an existing folder may be replaced.

    Raises:
        OutputError: As in `check_output_folder`, or writing failed.
    """
    check_output_folder(folder, overwrite, replace_rule)
    new, made = _temporary_folder(folder, "new"), list[Path]()
    try:
        with write_errors_as_output_error(folder):
            made = make_parents(folder)
            new.mkdir()
            yield new
            _set_usual_permissions(new)
            _flush(new)
            _move_to_final_path(new, folder.resolve())
    finally:
        shutil.rmtree(new, ignore_errors=True)
        remove_empty(made)


def check_output_file(file: Path, overwrite: bool = False) -> None:
    """Check before a long run that its result can be written to a file.

    Args:
        file: The output file; missing folders above it are made.
        overwrite: Allow to replace an existing file.

    Raises:
        OutputError: The file exists and must not be replaced, it is a folder, or it cannot be written.
    """
    file = Path(file)
    with write_errors_as_output_error(file):
        if file.is_dir():
            raise OutputError(f"{file} is a folder, but the output is a file.\nChoose another name.")
        if file.exists() and not overwrite:
            raise OutputError(f"{file} exists.\nChoose another name, or replace it with --overwrite.")
        _check_writable(file)


@contextlib.contextmanager
def write_file(file: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path for a file that is moved to `file` when the block ends without an error.

    Further files that are written next to the yielded path are moved as well.

    Args:
        file: The output file; missing folders above it are made.
        overwrite: Allow to replace an existing file.

    Raises:
        OutputError: As in `check_output_file`, or writing failed.
    """
    file = Path(file)
    check_output_file(file, overwrite)
    new, made = _temporary_folder(file, "new"), list[Path]()
    try:
        with write_errors_as_output_error(file):
            made = make_parents(file)
            new.mkdir()
            yield new / file.name
            _set_usual_permissions(new)
            _flush(new)
            for part in sorted(new.iterdir(), key=lambda part: part.name == file.name):  # the file itself comes last
                part.replace(file.resolve().with_name(part.name))
    finally:
        shutil.rmtree(new, ignore_errors=True)
        remove_empty(made)


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


def clean_up(folder: Path) -> None:
    """Remove what writers of an output that were killed left next to it; put back an output that one had moved away.

    Args:
        folder: The output folder; the caller keeps other runs from writing it.
    """
    folder = folder.resolve()
    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*-*"):
        purpose, _, number = path.name.removeprefix(f".{folder.name}.").partition("-")
        if purpose not in PURPOSES or not number.isdecimal() or _is_running(int(number)):
            continue
        if purpose == "old" and not folder.exists():
            path.rename(folder)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


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
