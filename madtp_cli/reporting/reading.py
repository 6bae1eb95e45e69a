"""Read a report that an earlier command wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from madtp_cli.errors import InputError
from madtp_cli.reporting.schema import CompressReport, EvalReport, ProfileReport

#: File of a compressed folder that has its report.
REPORT = "report.json"
#: Largest report that is read, in bytes.
LARGEST = 64 * 2**20
#: The reports with figures of a model, by their command.
KINDS: dict[str, type[CompressReport | EvalReport | ProfileReport]] = {
    "compress": CompressReport,
    "eval": EvalReport,
    "profile": ProfileReport,
}


def report_file(path: Path) -> Path:
    """Return the report of a path: the path itself if it is a file, else the report.json in the folder.

    Raises:
        InputError: There is none.
    """
    file = path / REPORT if path.is_dir() else path
    if not file.is_file():
        reason = f"{path} has no {REPORT}" if path.is_dir() else f"There is no file or folder {path}"
        raise InputError(f"{reason}.\nGive a folder of `madtp compress`, or the file of a --json document.")
    return file


def read_report(path: Path) -> CompressReport | EvalReport | ProfileReport:
    """Return the report of a compressed folder, or of a file with the --json document of compress, eval or profile.

    Raises:
        InputError: There is no report, or it is not a report of these commands.
    """
    file = report_file(path)
    content = _content(file)
    kind = KINDS.get(str(content.get("command")))
    if kind is None:
        raise InputError(
            f"{file} is not a report of madtp {', '.join(KINDS)}.\n"
            "Give report.json of a compressed folder, or a --json document of these commands."
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{file}: {where}: {first['msg']}.\nWrite the report again with this version.") from None


def _content(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    try:
        if (size := file.stat().st_size) > LARGEST:
            raise InputError(f"{file} has {size:,} bytes, more than a report has.\nGive a report of madtp.")
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.\nCheck the path.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON ({str(error)[:100]}).\nGive a report of madtp.") from error
    return content if isinstance(content, dict) else {}
