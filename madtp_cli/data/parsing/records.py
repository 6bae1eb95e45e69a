"""Records of annotation files: JSON lists, JSON lines, and lists inside one JSON object.

A JSON list and JSON lines give the same records.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp_cli.data import files
from madtp_cli.data.parsing.json_sniffing import PEEK_BYTES, first_objects
from madtp_cli.errors import DataError

#: Half of a UTF-16 surrogate pair, in a text and as JSON writes it.
_SURROGATE, _WRITTEN_SURROGATE = re.compile("[\ud800-\udfff]"), re.compile(r"\\u[dD][89a-fA-F]")
_TRUE_OR_FALSE = {"true": 1, "false": 0}


@dataclass(frozen=True, slots=True)
class Record:
    """One row of an annotation file, with its position for error messages.

    Args:
        file: The annotation file.
        row: Number of the row, from 1.
        fields: The values by field name.
        list_name: Name of the list that holds the record, if the file is one object with lists in it.
    """

    file: Path
    row: int
    fields: dict[str, Any]
    list_name: str = ""

    def error(self, problem: str, remedy: str) -> DataError:
        """Return an error that names the file and the row."""
        where = f"{self.list_name} row" if self.list_name else "row"
        return DataError(f"{self.file}, {where} {self.row}: {problem}.\n{remedy}")

    def value(self, name: str) -> Any:
        """Return a required field."""
        if name not in self.fields:
            available = ", ".join(map(str, self.fields)) or "none"
            raise self.error(f"field {name!r} is missing (fields: {available})", "Add the field, or remove the row.")
        return self.fields[name]

    def text(self, name: str) -> str:
        """Return a field that must be a text with at least one visible character."""
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"field {name!r} must be a text, not {shortened(value)}", "Correct or remove the row.")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a text or a list of texts, without blank texts."""
        value = self.value(name)
        texts = value if isinstance(value, list) else [value]
        if not all(isinstance(text, str) for text in texts):
            raise self._not_texts(name)
        return tuple(text for text in texts if text.strip())

    def answers(self, name: str) -> tuple[str, ...]:
        """Return a field that is an answer or a list of answers, without blank ones; a number is a text of its digits.

        An item of the list may be an object whose field `answer` is the text, as in VQAv2 and VizWiz.
        """
        value = self.value(name)
        items = value if isinstance(value, list) else [value]
        texts = [as_text(item.get("answer") if isinstance(item, dict) else item) for item in items]
        if None in texts:
            raise self._not_texts(name)
        return tuple(text for text in texts if text and text.strip())

    def _not_texts(self, name: str) -> DataError:
        problem = f"field {name!r} must be a text or a list of texts, not {shortened(self.fields[name])}"
        return self.error(problem, "Correct or remove the row.")

    def number(self, name: str) -> int:
        """Return a field that must be a whole number, 0 or more."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.error(f"field {name!r} is {shortened(value)}", "It must be a whole number, 0 or more.")
        return value

    def truth(self, name: str) -> int:
        """Return 1 or 0 for a field that is true or false, written as a string, a boolean, or 1 and 0."""
        value = self.value(name)
        if isinstance(value, int) and value in (0, 1):
            return int(value)
        if isinstance(value, str) and value.strip().lower() in _TRUE_OR_FALSE:
            return _TRUE_OR_FALSE[value.strip().lower()]
        raise self.error(f"field {name!r} is {shortened(value)}", 'It must be "True" or "False".')


def as_text(value: object) -> str | None:
    """Return a text as it is and a number as its digits; None for anything else, also for NaN.

    >>> as_text("two"), as_text(2), as_text(0.5), as_text(True), as_text(float("nan"))
    ('two', '2', '0.5', None, None)
    """
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return str(value) if is_number else None


def shortened(value: object) -> str:
    """Return a value as error messages print it, with at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def load(file: Path) -> list[Record]:
    """Return all records of a JSON list or of JSON lines.

    Raises:
        DataError: The file is empty or broken.
    """
    values = load_values(file)
    if not values:
        raise DataError(f"{file} is empty.\nDownload or write it again, or remove it.")
    return _records(file, values)


def load_object(file: Path) -> dict[str, Any]:
    """Return the content of a file that is one JSON object.

    Raises:
        DataError: The file is empty, broken, or not one object.
    """
    values = load_values(file)
    if len(values) != 1 or not isinstance(values[0], dict):
        raise DataError(f"{file} must hold one JSON object.\nDownload or write it again, or remove it.")
    return values[0]


def records_in_list(file: Path, content: dict[str, Any], name: str) -> list[Record]:
    """Return the records of one list in a JSON object.

    Args:
        file: The file, for error messages.
        content: What `load_object` returned for the file.
        name: Name of the list.

    Raises:
        DataError: There is no such list, it is empty, or it holds something else than records.
    """
    values = content.get(name)
    if not isinstance(values, list) or not values:
        available = ", ".join(map(str, content)) or "none"
        raise DataError(f"{file} has no list {name!r} with records (fields: {available}).\nDownload or write it again.")
    return _records(file, values, name)


def _records(file: Path, values: list[Any], list_name: str = "") -> list[Record]:
    records = []
    for number, fields in enumerate(values, 1):
        record = Record(file, number, fields, list_name)
        if not isinstance(fields, dict):
            raise record.error(f"{shortened(fields)} is not a record", "A row must be an object {field: value}.")
        records.append(record)
    return records


def half_character(value: object) -> str | None:
    """Return half of a UTF-16 surrogate pair in a JSON value, or None."""
    found = _SURROGATE.search(json.dumps(value, ensure_ascii=False))
    return found[0] if found else None


def _refuse_half_characters(file: Path, values: list[Any]) -> list[Any]:
    """Raise a DataError for half of a UTF-16 surrogate pair: no tokenizer and no output can encode it."""
    for number, value in enumerate(values, 1):
        half = half_character(value)
        if half:
            raise DataError(
                f"{file}, row {number}: a text has half of a character, {half}.\n"
                "Correct or remove the row: such codes stand for a character only in pairs."
            )
    return values


def load_values(file: Path) -> list[Any]:
    """Return the elements of a file that is a JSON list, or the values of JSON lines.

    Raises:
        DataError: The file is not text or not JSON.
    """
    text = files.read_text(file)
    values = _values(file, text)
    return _refuse_half_characters(file, values) if _WRITTEN_SURROGATE.search(text) else values


def _values(file: Path, text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        return list(_parse(file, text, 1))
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        first = [json.loads(line) for _, line in lines[:1]]
    except (ValueError, RecursionError):  # one object over several lines, or broken; parsing the whole file tells which
        return [_parse(file, text, 1)]
    return first + [_parse(file, line, number) for number, line in lines[1:]]


def _parse(file: Path, text: str, line: int) -> Any:
    """Parse JSON text that begins on this line of a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line + error.lineno - 1}, column {error.colno}"
        raise DataError(f"{file} is broken: {where}: {error.msg}.\nDownload or write it again.") from error
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        reason = "is nested too deeply" if deep else "holds a number with thousands of digits"
        raise DataError(f"{file} is broken: line {line} {reason}.\nDownload or write it again.") from error


def find_fault(file: Path) -> str | None:
    """Return why a file is broken or empty, or None.

    A long file whose beginning is correct is not read to its end, because that takes too long.
    """
    if file.stat().st_size > PEEK_BYTES and first_objects(file):
        return None
    try:
        load(file)
    except DataError as error:
        return str(error).splitlines()[0]
    return None
