"""What a user can give by mistake where a path is expected."""

from __future__ import annotations

import re
from pathlib import Path

from madtp_cli.errors import MadtpError

#: One letter before the colon is a drive. `Path` shortens "//" to "/".
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?=[^/])")


def refuse_url(
    path: str | Path, error: type[MadtpError], advice: str = "Download it first, and give its path."
) -> None:
    """Raise `error` if a path is a URL: nothing is downloaded."""
    found = _URL.match(str(path))
    if found and not Path(path).exists():
        raise error(f"{found[1]}://{str(path)[found.end() :]} is a URL, not a path.\n{advice}")
