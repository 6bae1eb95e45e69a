"""Annotation files: which are there, which split each belongs to, and their records.

A file is a JSON list or JSON lines; both give the same records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.errors import DataError

#: Where annotation files lie below a data folder; "data" is the official NLVR2 repository's.
PLACES = ("annotation", "annotations", "data")
#: The first record must end within this many bytes of the beginning of its file.
PEEK_BYTES = 65_536
_SPLIT = re.compile(r"(?<![a-z])(train|dev|validation|valid|val|test)(\d*)(?![a-z])", re.IGNORECASE)
_TRUTHS = {"true": 1, "false": 0}


@dataclass(frozen=True)
class Record:
    """One row of an annotation file; it knows where it stands, for errors."""

    file: Path
    row: int
    fields: dict[str, Any]

    def error(self, what: str, remedy: str) -> DataError:
        """An error that says where the record is."""
        return DataError(f"{self.file}, row {self.row}: {what}.\n{remedy}")

    def value(self, name: str) -> Any:
        """A field that must be there."""
        if name not in self.fields:
            has = ", ".join(map(str, self.fields)) or "none"
            raise self.error(f"field {name!r} is missing (fields: {has})", "Add the field, or remove the row.")
        return self.fields[name]

    def text(self, name: str) -> str:
        """A field that must hold words."""
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"field {name!r} must be words, not {_shown(value)}", "Correct the row, or remove it.")
        return value

    def truth(self, name: str) -> int:
        """A field that must be true or false, as a string, a boolean or 0 and 1."""
        value = self.value(name)
        if isinstance(value, int) and value in (0, 1):
            return int(value)
        if isinstance(value, str) and value.strip().lower() in _TRUTHS:
            return _TRUTHS[value.strip().lower()]
        raise self.error(f"field {name!r} is {_shown(value)}", 'It must be "True" or "False".')


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def home(path: Path) -> Path:
    """The data folder that an annotation file or folder belongs to; images are looked for below it."""
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    # A data folder may itself be called "data" or "annotations"; then it holds more than annotation files.
    is_place = folder.name in PLACES and not any((folder / name).is_dir() for name in ("images", *PLACES))
    return folder.parent if is_place else folder


def files(path: Path) -> list[Path]:
    """The annotation files of a data folder, or the one file given."""
    if not path.is_dir():
        return [path]
    folders = [path, *(path / place for place in PLACES)]
    return sorted(file for folder in folders for file in folder.glob("*.json*") if file.suffix in (".json", ".jsonl"))


def first_record(file: Path) -> dict[str, Any] | None:
    """The first object of a JSON list or of JSON lines, read without the rest; None if there is none."""
    with file.open("rb") as stream:
        text = stream.read(PEEK_BYTES).decode("utf-8-sig", errors="replace").lstrip()
    try:
        record, _ = json.JSONDecoder().raw_decode(text.removeprefix("[").lstrip())
    except (json.JSONDecodeError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def recognises(path: Path, fits: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether the first record of any file fits."""
    return any(record is not None and fits(record) for record in map(first_record, files(path)))


def find(path: Path, fits: Callable[[dict[str, Any]], bool]) -> tuple[dict[str, Path], list[str]]:
    """The annotation file of each split, and notes.

    A broken or empty file whose name differs from a fitting one only in the split belongs
    to them too, so that it is complained about and not passed over.

    Raises:
        DataError: No file name tells its split, or several claim the same.
    """
    every = files(path)
    fitting = [file for file in every if (record := first_record(file)) is not None and fits(record)]
    families = {_family(file) for file in fitting}
    claims: dict[str, list[Path]] = {}
    for file in every:
        if _family(file) in families and (split := _split(file)):
            claims.setdefault(split, []).append(file)
    if not claims:
        raise DataError(f"The name of {fitting[0]} tells no split.\nRename it so that it contains train, val or test.")
    notes: list[str] = []
    return {split: _choose(split, claimants, notes) for split, claimants in claims.items()}, notes


def _split(file: Path) -> str | None:
    word = _SPLIT.search(file.stem)
    if not word:
        return None
    name = word[1].lower()
    return name if name in ("train", "test") else "val"


def _family(file: Path) -> tuple[Path, str]:
    return file.parent, _SPLIT.sub("*", file.stem)


def _number(file: Path) -> int:
    word = _SPLIT.search(file.stem)
    return int(word[2] or 0) if word else 0


def _choose(split: str, claimants: list[Path], notes: list[str]) -> Path:
    """One file of a split: of test1 and test2 the first."""
    claimants = sorted(claimants, key=_number)
    if len({_family(file) for file in claimants}) > 1 or len({_number(file) for file in claimants}) < len(claimants):
        names = ", ".join(str(file) for file in claimants[:3])
        raise DataError(
            f"Several files claim the {split} split: {names}.\nGive one annotation file, or move the others away."
        )
    if claimants[1:]:
        left_out = ", ".join(file.name for file in claimants[1:])
        notes.append(f"the {split} split is {claimants[0].name}; {left_out} left out (give that file itself to use it)")
    return claimants[0]


def load(file: Path) -> list[Record]:
    """All records of a file, rows counted from 1.

    Raises:
        DataError: The file is empty or broken.
    """
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 (byte {error.start}).\nIs it an annotation file?") from error
    rows = _parsed(file, text, 1) if text.lstrip().startswith("[") else _parsed_lines(file, text)
    if not rows:
        raise DataError(f"{file} is empty.\nFetch or write it again, or remove it.")
    records = []
    for number, fields in enumerate(rows, 1):
        if not isinstance(fields, dict):
            raise DataError(f"{file}, row {number}: {_shown(fields)} is no record.\nA row must be {{field: value}}.")
        records.append(Record(file, number, fields))
    return records


def _parsed_lines(file: Path, text: str) -> list[Any]:
    return [_parsed(file, words, line) for line, words in enumerate(text.split("\n"), 1) if words.strip()]


def _parsed(file: Path, text: str, line: int) -> Any:
    """Parse JSON that begins on this line of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1}, column {error.colno}"
        raise DataError(f"{file} is broken: {where}: {error.msg}.\nFetch or write it again.") from error
    except RecursionError as error:
        raise DataError(f"{file} is broken: line {line} is nested too deeply.\nFetch or write it again.") from error


def fault(file: Path) -> str | None:
    """What is wrong with a file as such, or None."""
    try:
        load(file)
    except DataError as error:
        return str(error).splitlines()[0]
    return None
