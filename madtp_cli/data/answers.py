"""The list of answers that a VQA model ranks, as BLIP's users have it: a file beside the annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from madtp_cli.data import records
from madtp_cli.errors import DataError

#: A JSON list of strings.
ANSWER_LIST = "answer_list.json"


def listed(path: Path) -> tuple[str, ...]:
    """The answers beside the annotations of a data folder or of one file, each once; none if there is no list.

    Raises:
        DataError: The list is broken or empty, holds something else than words, or there are several.
    """
    beside = path if path.is_dir() else path.absolute().parent
    found = [file for file in records.files(beside) if file.name == ANSWER_LIST]
    if found[1:]:
        raise DataError(
            f"Several files list the answers: {', '.join(map(str, found))}.\n"
            "Move all but one away, or give one annotation file; then the list beside it counts."
        )
    return _words(found[0]) if found else ()


def _words(file: Path) -> tuple[str, ...]:
    answers: list[Any] = records.items(file)
    for number, answer in enumerate(answers, 1):
        if not isinstance(answer, str) or not answer.strip():
            raise DataError(
                f"{file}, item {number}: {records.shown(answer)} is no answer.\n"
                "It must be a JSON list of strings. Correct it, or move it away: then answers are written, not ranked."
            )
    if not answers:
        raise DataError(f"{file} is empty.\nFetch or write it again, or move it away: then answers are written.")
    return tuple(dict.fromkeys(answers))
