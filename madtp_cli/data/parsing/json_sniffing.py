"""Reads the first and the last objects of a JSON file, which is equally fast for files of any size."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from madtp_cli.data import files

#: Bytes that are read at one end of a file; the first record must end within them.
PEEK_BYTES = 65_536
_DECODER = json.JSONDecoder()
#: What may stand between two values. Whether the file is correct JSON is checked when it is read as a whole.
_GAP = re.compile(r"[\s,:]*")
_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")


def first_objects(file: Path) -> list[dict[str, Any]]:
    """Return the first objects of a JSON list or of JSON lines, or the one object that a file is.

    The first object may continue beyond the bytes that are read. Then its complete fields are returned; of a list that
    is cut off, the complete elements.
    """
    text, _ = files.beginning(file, PEEK_BYTES)
    position = _skip_gap(text, 0)
    if text.startswith("[", position):
        position = _skip_gap(text, position + 1)
    objects: list[dict[str, Any]] = []
    while text.startswith("{", position):
        fields: dict[str, Any] = {}
        try:
            position = _skip_gap(text, _parse_object(fields, text, position))
        except (ValueError, RecursionError):
            # A later object that is cut off could lack the field that shows its layout, so it is dropped.
            return objects or [fields]
        objects.append(fields)
    return objects


def last_objects(file: Path) -> list[dict[str, Any]]:
    """Return the last objects of a file that contain no other objects, from whichever list they are."""
    files.require_regular(file)
    with file.open("rb") as stream:
        encoding = files.encoding_of(stream.read(4))
        stream.seek(max(0, (file.stat().st_size - PEEK_BYTES) // 4 * 4))
        text = files.decode(stream.read(), encoding)
    objects = []
    for candidate in _FLAT_OBJECT.findall(text):
        with contextlib.suppress(ValueError, RecursionError):
            objects.append(json.loads(candidate))
    return objects


def _skip_gap(text: str, position: int) -> int:
    gap = _GAP.match(text, position)
    return gap.end() if gap else position


def _parse_object(fields: dict[str, Any], text: str, position: int) -> int:
    """Add the fields of the object at this position to `fields`, and return the position after the object.

    Raises:
        ValueError: The text ends inside the object; the complete fields have been added.
    """
    position = _skip_gap(text, position + 1)
    while not text.startswith("}", position):
        name, position = _DECODER.raw_decode(text, position)
        position = _skip_gap(text, position)
        if text.startswith("[", position):
            elements: list[Any] = []
            fields[str(name)] = elements
            position = _parse_list(elements, text, position)
        else:
            fields[str(name)], position = _DECODER.raw_decode(text, position)
        position = _skip_gap(text, position)
    return position + 1


def _parse_list(elements: list[Any], text: str, position: int) -> int:
    position = _skip_gap(text, position + 1)
    while not text.startswith("]", position):
        element, position = _DECODER.raw_decode(text, position)
        elements.append(element)
        position = _skip_gap(text, position)
    return position + 1
