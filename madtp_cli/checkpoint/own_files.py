"""Single files that madtp writes for people: a file of an earlier run may be replaced, any other file may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from madtp_cli.checkpoint.atomic_write import check_output_file, write_file

#: Stands near the beginning of each of these files: the generator of a page, the software of a picture.
MARK = "madtp"
#: Bytes at the beginning of a file that are searched for it.
BEGINNING = 2048


def is_own(file: Path) -> bool:
    """Return whether a file exists that madtp wrote."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return MARK.encode() in stream.read(BEGINNING)


def check(file: Path, overwrite: bool = False) -> None:
    """Check that a file can be written.

    Args:
        file: The file.
        overwrite: Replace also a file that madtp did not write.

    Raises:
        OutputError: It cannot be written, or must not be replaced.
    """
    check_output_file(file, overwrite or is_own(file))


def write(file: Path, save: Callable[[Path], None], overwrite: bool = False) -> None:
    """Write a file by `save`, completely or not at all.

    Raises:
        OutputError: As in `check`.
    """
    with write_file(file, overwrite or is_own(file)) as new:
        save(new)


def write_text(file: Path, text: str, overwrite: bool = False) -> None:
    """Write a text file, as `write`."""

    def save(new: Path) -> None:
        new.write_text(text, encoding="utf-8")

    write(file, save, overwrite)
