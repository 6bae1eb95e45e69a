"""Annotation files: which are there, which split each belongs to, and their records.

A file is a JSON list or JSON lines, which give the same records, or one object with lists of records in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.data.json_sniffing import PEEK_BYTES, beginning
from madtp_cli.errors import DataError

#: Where annotation files lie below a data folder; "data" is the official NLVR2 repository's.
PLACES = ("annotation", "annotations", "data")
#: VQAv2's "test-dev" is a part of its "test".
_SPLIT = re.compile(r"(?<![a-z])(train|dev|validation|valid|val|test(?:[-_](?:dev|std))?)(\d*)(?![a-z])", re.IGNORECASE)
_TRUTHS = {"true": 1, "false": 0}

#: Whether an object that opens a file is of a layout.
Fits = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Record:
    """One row of an annotation file, or of a list in it (`part`); it knows where it stands, for errors."""

    file: Path
    row: int
    fields: dict[str, Any]
    part: str = ""

    def error(self, what: str, remedy: str) -> DataError:
        """An error that says where the record is."""
        return DataError(f"{self.file}, {f'{self.part} ' if self.part else ''}row {self.row}: {what}.\n{remedy}")

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
            raise self.error(f"field {name!r} must be words, not {shown(value)}", "Correct the row, or remove it.")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that holds words or a list of them; blank ones say nothing and are left out."""
        value = self.value(name)
        words = value if isinstance(value, list) else [value]
        if not all(isinstance(word, str) for word in words):
            raise self.error(
                f"field {name!r} must be words or a list of them, not {shown(value)}", "Correct the row, or remove it."
            )
        return tuple(word for word in words if word.strip())

    def number(self, name: str) -> int:
        """A field that must be a whole number, 0 or more."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f"field {name!r} is {shown(value)}", "It must be a whole number.")
        return value

    def truth(self, name: str) -> int:
        """A field that must be true or false, as a string, a boolean or 0 and 1."""
        value = self.value(name)
        if isinstance(value, int) and value in (0, 1):
            return int(value)
        if isinstance(value, str) and value.strip().lower() in _TRUTHS:
            return _TRUTHS[value.strip().lower()]
        raise self.error(f"field {name!r} is {shown(value)}", 'It must be "True" or "False".')


def shown(value: object) -> str:
    """A value as an error quotes it."""
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


def opens(file: Path, fits: Fits) -> bool:
    """Whether an object that opens a file fits."""
    return any(map(fits, beginning(file)))


def recognises(path: Path, fits: Fits) -> bool:
    """Whether an object that opens any file fits."""
    return any(opens(file, fits) for file in files(path))


def only(path: Path, fits: Fits) -> Path:
    """The one file that fits.

    Raises:
        DataError: There are several.
    """
    fitting = [file for file in files(path) if opens(file, fits)]
    if len(fitting) > 1:
        names = ", ".join(str(file) for file in fitting[:3])
        raise DataError(f"Several files hold a data set each: {names}.\nGive one of them.")
    return fitting[0]


def find(path: Path, fits: Fits) -> tuple[dict[str, Path], list[str]]:
    """The annotation file of each split, and notes.

    Raises:
        DataError: No file name tells its split, or several claim the same.
    """
    every = files(path)
    return by_split(every, [file for file in every if opens(file, fits)])


def by_split(every: Sequence[Path], fitting: Sequence[Path]) -> tuple[dict[str, Path], list[str]]:
    """Of files of one layout that of each split, and notes.

    A broken or empty file whose name differs from a fitting one only in the split belongs
    to them too, so that it is complained about and not passed over.

    Raises:
        DataError: No file name tells its split, or several claim the same.
    """
    families = {_family(file) for file in fitting}
    claims: dict[str, list[Path]] = {}
    for file in every:
        if _family(file) in families and (split := _split(file)):
            claims.setdefault(split, []).append(file)
    if fitting and not claims:
        raise DataError(f"The name of {fitting[0]} tells no split.\nRename it so that it contains train, val or test.")
    notes = [f"{file.name} left out: its name tells no split" for file in fitting if not _split(file)]
    return {split: _choose(split, claimants, notes) for split, claimants in claims.items()}, notes


def split_word(file: Path) -> str:
    """The part of a file's name that tells its split, such as "val2014"; empty if there is none."""
    word = _SPLIT.search(file.stem)
    return word[0].lower() if word else ""


def _split(file: Path) -> str | None:
    return split_named(file.stem)


def split_named(name: str) -> str | None:
    """The split that a name tells, such as "val" of "coco_dev"; None if it tells none."""
    word = _SPLIT.search(name)
    if not word:
        return None
    split = word[1].lower()
    return "train" if split == "train" else "test" if split.startswith("test") else "val"


def _family(file: Path) -> tuple[Path, str]:
    return file.parent, _SPLIT.sub("*", file.stem)


def _rank(file: Path) -> tuple[int, str]:
    """test1 comes before test2, and test before test-dev."""
    word = _SPLIT.search(file.stem)
    return (int(word[2] or 0), word[1].lower()) if word else (0, "")


def _choose(split: str, claimants: list[Path], notes: list[str]) -> Path:
    """One file of a split: of test1 and test2 the first."""
    claimants = sorted(claimants, key=_rank)
    if len({_family(file) for file in claimants}) > 1 or len({_rank(file) for file in claimants}) < len(claimants):
        names = ", ".join(str(file) for file in claimants[:3])
        raise DataError(
            f"Several files claim the {split} split: {names}.\nGive one annotation file, or move the others away."
        )
    if claimants[1:]:
        left_out = ", ".join(file.name for file in claimants[1:])
        notes.append(f"the {split} split is {claimants[0].name}; {left_out} left out (give that file itself to use it)")
    return claimants[0]


def load(file: Path) -> list[Record]:
    """All records of a JSON list or of JSON lines, rows counted from 1.

    Raises:
        DataError: The file is empty or broken.
    """
    values = items(file)
    if not values:
        raise DataError(f"{file} is empty.\nFetch or write it again, or remove it.")
    return _records(file, values)


def load_object(file: Path) -> dict[str, Any]:
    """The one object that a file is.

    Raises:
        DataError: The file is empty or broken, or something else.
    """
    values = items(file)
    if len(values) != 1 or not isinstance(values[0], dict):
        raise DataError(f"{file} must hold one JSON object.\nFetch or write it again, or remove it.")
    return values[0]


def part(file: Path, fields: dict[str, Any], name: str) -> list[Record]:
    """The records in one of the lists of `load_object`, rows counted from 1.

    Raises:
        DataError: There is no such list, or it is empty or holds something else.
    """
    values = fields.get(name)
    if not isinstance(values, list) or not values:
        has = ", ".join(map(str, fields)) or "none"
        raise DataError(f"{file} has no list {name!r} with records (fields: {has}).\nFetch or write it again.")
    return _records(file, values, name)


def _records(file: Path, values: list[Any], part: str = "") -> list[Record]:
    records = []
    for number, fields in enumerate(values, 1):
        record = Record(file, number, fields, part)
        if not isinstance(fields, dict):
            raise record.error(f"{shown(fields)} is no record", "A row must be {field: value}.")
        records.append(record)
    return records


def items(file: Path) -> list[Any]:
    """The elements of the list that a file is, or the values that follow each other in it."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 (byte {error.start}).\nIs it an annotation file?") from error
    if text.lstrip().startswith("["):
        return list(_parsed(file, text, 1))
    lines = [(number, words) for number, words in enumerate(text.split("\n"), 1) if words.strip()]
    try:
        first = [json.loads(words) for _, words in lines[:1]]
    except (ValueError, RecursionError):  # an object over several lines, or broken: then it is said where
        return [_parsed(file, text, 1)]
    return first + [_parsed(file, words, number) for number, words in lines[1:]]


def _parsed(file: Path, text: str, line: int) -> Any:
    """Parse JSON that begins on this line of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1}, column {error.colno}"
        raise DataError(f"{file} is broken: {where}: {error.msg}.\nFetch or write it again.") from error
    except (ValueError, RecursionError) as error:
        why = "is nested too deeply" if isinstance(error, RecursionError) else "holds a number of thousands of digits"
        raise DataError(f"{file} is broken: line {line} {why}.\nFetch or write it again.") from error


def fault(file: Path) -> str | None:
    """What is wrong with a file as such, or None; a long file that begins well is not read for it."""
    if file.stat().st_size > PEEK_BYTES and beginning(file):
        return None
    try:
        load(file)
    except DataError as error:
        return str(error).splitlines()[0]
    return None
