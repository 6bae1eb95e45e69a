"""What is wrong in a settings file beside a checkpoint: the first field that a pydantic model refuses."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError

#: Characters of a value that a message shows.
LONGEST = 60


class InvalidField(NamedTuple):
    """A field that cannot be used.

    Attributes:
        path: Names of what contains the field, and its own name; its type follows if it may have several.
        value: Its value as text, shortened.
        reason: What is wrong with it.
    """

    path: tuple[str, ...]
    value: str
    reason: str


def first_of(error: ValidationError) -> InvalidField:
    """Return the first field of an error."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = tuple(map(str, first["loc"]))
    return InvalidField(path, ascii(first["input"])[:LONGEST], first["msg"].removeprefix("Value error, "))
