"""Texts that come from files, in reports: they can be encoded, and do nothing to a terminal that shows them."""

from __future__ import annotations

import json
import re
from typing import Any

#: Characters that JSON may hold as they are, but that a terminal executes or that change the order of a text.
_UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def encodable(value: Any) -> Any:
    r"""Return a value whose texts can be encoded: half of a surrogate pair becomes its code.

    File names may hold bytes that are no text; Python stands for them with such halves.

    >>> encodable({"a": ["b\udcff", 1]})
    {'a': ['b\\udcff', 1]}
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {encodable(name): encodable(content) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(encodable, value))
    return value


def safe_json(document: str) -> str:
    r"""Return the same JSON document with the characters escaped that would do something to a terminal.

    >>> print(safe_json('"a\x9b2J \u202e"'))
    "a\u009b2J \u202e"
    """
    return _UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], document)
