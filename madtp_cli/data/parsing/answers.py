"""The list of answers that a VQA model ranks, as BLIP's users have it: a file next to the annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from madtp_cli.data.parsing import records
from madtp_cli.data.parsing.annotation_files import json_files
from madtp_cli.errors import DataError

#: A JSON list of strings.
ANSWER_LIST = "answer_list.json"


def read_answer_list(path: Path) -> tuple[str, ...]:
    """Return the answers listed next to the annotations, each once; none if there is no list.

    Args:
        path: A data folder or one annotation file.

    Raises:
        DataError: The list is empty, broken or not a list of texts, or there are several lists.
    """
    folder = path if path.is_dir() else path.absolute().parent
    files = [file for file in json_files(folder) if file.name == ANSWER_LIST]
    if files[1:]:
        raise DataError(
            f"Several files list the answers: {', '.join(map(str, files))}.\n"
            "Move all but one away, or give one annotation file; then the list in its folder is used."
        )
    return _answers(files[0]) if files else ()


def _answers(file: Path) -> tuple[str, ...]:
    items: list[Any] = records.load_values(file)
    answers = []
    for number, item in enumerate(items, 1):
        answer = records.as_text(item)
        if not answer or not answer.strip():
            raise DataError(
                f"{file}, item {number}: {records.shortened(item)} is not an answer.\n"
                "Correct it (the file must be a JSON list of strings), or move the file away to generate answers."
            )
        answers.append(answer)
    if not answers:
        raise DataError(
            f"{file} is empty.\nDownload or write it again, or move it away; then the model generates answers."
        )
    return tuple(dict.fromkeys(answers))
