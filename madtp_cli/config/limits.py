"""Limits on what a file may ask of this machine: each has a default, and a `MADTP_LIMIT_*` variable changes it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from madtp_cli.errors import UsageError

PREFIX = "MADTP_LIMIT_"
#: Default of each limit.
DEFAULTS = {
    "IMAGE_PIXELS": 178_956_970,  # the size from which Pillow refuses an image
    "IMAGE_BYTES": 2**29,  # encoded, in a file or in an archive
    "ASPECT_RATIO": 200,  # CLIP resizes the shorter side, so a line of 1 x 20,000 pixels becomes a gigapixel
    "TEXT_BYTES": 2**24,  # one text file of captions, or one text in an archive
    "ANNOTATION_BYTES": 2**32,  # one annotation file
    "TOKEN_BYTES": 2**31,  # image tokens that retrieval keeps in memory; further ones go to temporary files
}


def variable(name: str) -> str:
    """Return the environment variable of a limit.

    >>> variable("IMAGE_PIXELS")
    'MADTP_LIMIT_IMAGE_PIXELS'
    """
    return PREFIX + name


def limit(name: str, environ: Mapping[str, str] = os.environ) -> int:
    """Return the value of a limit.

    Args:
        name: A key of `DEFAULTS`.
        environ: The environment variables.

    Raises:
        UsageError: The variable is not a whole number above 0.

    >>> limit("ASPECT_RATIO", {}), limit("ASPECT_RATIO", {"MADTP_LIMIT_ASPECT_RATIO": "1_000"})
    (200, 1000)
    """
    text = environ.get(variable(name), "").strip()
    if not text:
        return DEFAULTS[name]
    if len(text) > 30 or not re.fullmatch(r"[0-9]+(_[0-9]+)*", text) or not int(text):
        raise UsageError(
            f"{variable(name)} is {text[:30]!r}.\nIt must be a whole number above 0; the default is {DEFAULTS[name]}."
        )
    return int(text)
