"""Opens the files of a data set: only regular files, of bounded size, as text in UTF-8 or UTF-16.

A pipe or a device in a data folder would block the program, and a file can claim any size. All readers list and read
files with these functions.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path

from madtp_cli.config import limits
from madtp_cli.errors import DataError, printable

#: Byte order marks and the encodings that they announce; UTF-32 first, because it begins like UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class LimitError(DataError):
    """A file is larger than a limit allows."""


def listed(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder whose names end in one of the suffixes, in the order of their names.

    Files whose names begin with a dot are passed over: macOS writes "._name" beside a file. So are folders.

    Args:
        folder: The folder; it may be missing.
        suffixes: Endings in lower case, such as ".json" or ".tar.gz".

    Raises:
        DataError: Such a file is no regular file, or a link that leads nowhere.
    """
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    ends = tuple(suffixes)
    files = [folder / name for name in names if not name.startswith(".") and name.lower().endswith(ends)]
    kept = [file for file in files if not os.path.isdir(file)]
    for file in kept:
        require_regular(file)
    return kept


def require_regular(file: Path) -> None:
    """Raise a DataError if a path is not a regular file."""
    if fault := irregularity(file):
        raise DataError(f"{printable(str(file))} is {fault}, not a file.\nReplace it by the file itself, or remove it.")


def irregularity(file: Path) -> str | None:
    """Return what a path is if it is not a regular file, such as "a pipe"; None for a regular file."""
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError:
        return "a link to a file that does not exist" if os.path.islink(file) else "missing"
    except PermissionError:
        raise
    except OSError as error:
        return (
            f"a link that leads nowhere ({error.strerror})" if os.path.islink(file) else f"no path ({error.strerror})"
        )
    if stat.S_ISREG(mode):
        return None
    return next((kind for test, kind in _KINDS if test(mode)), "a special file")


def read_text(file: Path, limit: str = "ANNOTATION_BYTES") -> str:
    """Return the text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Args:
        file: The file.
        limit: Name of the limit of its size, see `madtp_cli.config.limits`.

    Raises:
        DataError: It is not a regular file, too large, or not text.
    """
    require_regular(file)
    require_size(file.stat().st_size, limit, printable(str(file)))
    content = file.read_bytes()
    encoding = encoding_of(content)
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{printable(str(file))} is not text in {encoding.upper()} (byte {error.start}).\n"
            "Check that it is an annotation file, and save it as UTF-8."
        ) from error


def beginning(file: Path, size: int) -> tuple[str, bool]:
    """Return the text of the first bytes of a file, and whether the file continues after them.

    Raises:
        DataError: It is not a regular file.
    """
    require_regular(file)
    with file.open("rb") as stream:
        content = stream.read(size)
    return decode(content, encoding_of(content)), len(content) == size


def decode(content: bytes, encoding: str) -> str:
    """Return a part of a text; bytes that are no text become replacement characters."""
    return content.decode(encoding, errors="replace").removeprefix("\ufeff")


def encoding_of(content: bytes) -> str:
    """Return the encoding that the byte order mark at the beginning announces; UTF-8 without one."""
    return next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "utf-8")


def require_size(size: int, limit: str, what: str) -> None:
    """Raise a LimitError if a file is larger than a limit.

    Args:
        size: Size in bytes.
        limit: Name of the limit.
        what: What it is, for the message.
    """
    allowed = limits.limit(limit)
    if size > allowed:
        raise LimitError(
            f"{what} has {size:,} bytes; the limit {limits.variable(limit)} is {allowed:,}.\n"
            f"If the file is right, set {limits.variable(limit)}={size}."
        )
