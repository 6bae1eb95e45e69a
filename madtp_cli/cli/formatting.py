"""Numbers, durations and single lines of text for people."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Longest printed text that comes from a data set, in characters.
LONGEST = 300


def count(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where needed.

    >>> count(1, "sample"), count(2000, "test sample")
    ('1 sample', '2,000 test samples')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a duration in seconds or minutes.

    >>> duration(0.32), duration(42.4), duration(90)
    ('0.3 s', '42 s', '1 min 30 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def digits(value: float) -> str:
    """Write a number with at least three significant digits.

    >>> digits(0.456), digits(4.56), digits(45.6), digits(4567.8)
    ('0.456', '4.56', '45.6', '4,568')
    """
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def first(names: Sequence[str], most: int = 3) -> str:
    """List the first names and the number of the others.

    >>> first(["a", "b"]), first(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def line(text: str) -> str:
    r"""Put text from a data set on one line, without control characters that a terminal would execute.

    >>> line("a\x1b[31mb\nc")
    'a [31mb c'
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 3] + "..."


def escaped(text: str) -> str:
    r"""Write control characters and lone surrogates as escapes, so that a terminal does not execute them.

    >>> escaped("a\x1b[31mb\nc")
    'a\\x1b[31mb\nc'
    """
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)
