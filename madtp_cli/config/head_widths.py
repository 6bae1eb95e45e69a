"""The width of an attention head: one number for both towers, or one number by tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from madtp_cli.errors import UsageError

TOWERS = ("vision", "text")


def parse(value: Any) -> int | dict[str, int] | None:
    """Return a width, or widths by tower.

    Raises:
        UsageError: The value is no width.

    >>> parse("80"), parse("vision=80,text=64")
    (80, {'vision': 80, 'text': 64})
    """
    try:
        return None if value is None else _parsed(value)
    except ValueError as error:
        raise UsageError(f"The head width {str(value)[:60]!r} is not allowed: {error}.") from error


def _parsed(value: Any) -> int | dict[str, int]:
    """Return what `parse` returns; a value that is not allowed raises ValueError."""
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in TOWERS]
        if unknown or not value:
            raise ValueError(f"give widths for {' and '.join(TOWERS)}, such as vision=80,text=64")
        return {str(name): _width(width) for name, width in value.items()}
    if isinstance(value, str) and "=" in value:
        pairs = [part.partition("=") for part in value.split(",")]
        names = [name.strip() for name, _, _ in pairs]
        if len(set(names)) != len(names):
            raise ValueError("a tower is given twice")
        return _parsed({name: width for name, (_, _, width) in zip(names, pairs, strict=True)})
    return _width(value)


def _width(value: Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or len(text) > 6 or int(text) < 1:
        raise ValueError("give a whole number of 1 or more, or vision=80,text=64")
    return int(text)


HeadWidth = Annotated[int | dict[str, int], BeforeValidator(_parsed)]
