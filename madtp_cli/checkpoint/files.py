"""Open the files of a checkpoint: regular files only, and JSON of a limited size."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from madtp_cli.errors import CheckpointError

#: Largest JSON file with settings, in bytes. The largest index of a published model has under a tenth of it.
LARGEST_JSON = 64 * 2**20


def exists(path: Path) -> bool:
    """Return whether there is a file of this name; a pipe, a folder or a link that leads nowhere is not passed over.

    Raises:
        CheckpointError: There is something else than a regular file.
    """
    if not os.path.lexists(path):
        return False
    try:
        require_regular(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is a link to a file that does not exist.\nCopy the file itself.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions.") from error
    return True


def require_regular(path: Path) -> None:
    """Raise CheckpointError unless a path is a regular file: reading a pipe or a device could wait without end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device",
                 stat.S_ISBLK: "a device", stat.S_ISDIR: "a folder"}  # fmt: skip
        kind = next((name for test, name in kinds.items() if test(mode)), "no file")
        raise CheckpointError(f"{path} is {kind}, not a regular file.\nReplace it by the file itself, or remove it.")


def read_json(path: Path) -> dict[str, Any]:
    """Return the settings of a JSON file by name.

    Raises:
        CheckpointError: The file is no regular file, too large, no valid JSON, or has no settings by name.
    """
    advice = "Copy or download it again."
    try:
        require_regular(path)
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise CheckpointError(f"{path} has {size:,} bytes, more than {LARGEST_JSON:,} for settings.\n{advice}")
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.\nCheck the path.") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is nested too deeply to be a file of settings.\n{advice}") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({str(error)[:100]}).\n{advice}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not contain settings by name.\n{advice}")
    return content
