"""What the two ends of an annotation file show of its layout, at the same price for files of any size."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

#: Read at an end of a file; the first record must end within it.
PEEK_BYTES = 65_536
_DECODER = json.JSONDecoder()
#: Between two values; whether it is the right one of these is seen when the file is read.
_GAP = re.compile(r"[\s,:]*")
_FLAT_OBJECT = re.compile(r"\{[^{}]*\}")


def beginning(file: Path) -> list[dict[str, Any]]:
    """The first objects of a JSON list or of JSON lines, or the one object that a file is.

    The first object may go on beyond what is read: then it has the fields, and the last of them
    the elements if it is a list, that end within it.
    """
    with file.open("rb") as stream:
        text = stream.read(PEEK_BYTES).decode("utf-8-sig", errors="replace")
    place = _next(text, 0)
    if text.startswith("[", place):
        place = _next(text, place + 1)
    found: list[dict[str, Any]] = []
    while text.startswith("{", place):
        fields: dict[str, Any] = {}
        try:
            place = _next(text, _fill(fields, text, place))
        except (ValueError, RecursionError):
            # A later one that is cut off could lack just the field that tells its layout.
            return found or [fields]
        found.append(fields)
    return found


def ending(file: Path) -> list[dict[str, Any]]:
    """The last objects of a file that hold no objects, whatever list they belong to."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - PEEK_BYTES))
        text = stream.read().decode("utf-8", errors="replace")
    found = []
    for words in _FLAT_OBJECT.findall(text):
        with contextlib.suppress(ValueError, RecursionError):
            found.append(json.loads(words))
    return found


def _next(text: str, place: int) -> int:
    gap = _GAP.match(text, place)
    return gap.end() if gap else place


def _fill(fields: dict[str, Any], text: str, place: int) -> int:
    """Add what there is of the object that begins here, until it ends or, with a ValueError, the text does."""
    place = _next(text, place + 1)
    while not text.startswith("}", place):
        name, place = _DECODER.raw_decode(text, place)
        place = _next(text, place)
        if text.startswith("[", place):
            elements: list[Any] = []
            fields[str(name)] = elements
            place = _fill_list(elements, text, place)
        else:
            fields[str(name)], place = _DECODER.raw_decode(text, place)
        place = _next(text, place)
    return place + 1


def _fill_list(elements: list[Any], text: str, place: int) -> int:
    place = _next(text, place + 1)
    while not text.startswith("]", place):
        element, place = _DECODER.raw_decode(text, place)
        elements.append(element)
        place = _next(text, place)
    return place + 1
