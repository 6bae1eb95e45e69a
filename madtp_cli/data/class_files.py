"""Files that a user writes for classification: the names of the classes, and the templates of their prompts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from madtp_cli.data.dataset import Dataset
from madtp_cli.data.files import read_text
from madtp_cli.errors import DataError

#: Stands for the name of the class in a template.
PLACE = "{}"


def with_class_names(data: Dataset, file: Path | None) -> Dataset:
    """Return a data set with readable names of its classes, in the order of their folders.

    Args:
        data: The data set; `answers` are the names of its folders.
        file: One name per line in the order of the folders, or lines "folder<TAB>name", or a JSON object of both; None
            for the names of the folders, with spaces instead of underscores.

    Raises:
        DataError: The file does not name every class.
    """
    folders = data.answers
    if file is None:
        return replace(data, answers=tuple(folder.replace("_", " ") for folder in folders))
    names = _by_folder(file, folders)
    absent = [folder for folder in folders if folder not in names]
    if absent:
        raise DataError(
            f"{file} has no name for {len(absent)} of the {len(folders)} classes, such as {absent[0]}.\n"
            "Add a line with the folder, a tab and the name."
        )
    return replace(data, answers=tuple(names[folder] for folder in folders))


def _by_folder(file: Path, folders: Sequence[str]) -> dict[str, str]:
    text = read_text(file, "TEXT_BYTES")
    if text.lstrip().startswith("{"):
        return _from_json(file, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("\t" in line for line in lines):
        rows = [line.partition("\t") for line in lines]
        return {folder.strip(): name.strip() for folder, _, name in rows if name.strip()}
    if len(lines) != len(folders):
        raise DataError(
            f"{file} has {len(lines)} names, but the data have {len(folders)} classes.\n"
            "Give one name per line in the alphabetical order of the folders, or lines with folder, tab and name."
        )
    return dict(zip(folders, lines, strict=True))


def _from_json(file: Path, text: str) -> dict[str, str]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise DataError(f"{file} is not valid JSON ({error}).\nCorrect it, or write lines with tabs.") from error
    wrong = next((folder for folder, name in content.items() if not isinstance(name, str) or not name.strip()), None)
    if wrong is not None:
        raise DataError(f"{file}: the name of {wrong[:60]} is not a text.\nGive a name in quotes.")
    return {folder: name.strip() for folder, name in content.items()}


def templates(file: Path) -> tuple[str, ...]:
    """Return the templates of a file, one per line, in which {} stands for the name of the class.

    Raises:
        DataError: A line has no {}, or there is no line.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(file, "TEXT_BYTES").splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise DataError(f"{file} has no templates.\nWrite one per line, such as: a photo of a {PLACE}.")
    wrong = next((number for number, line in lines if line.count(PLACE) != 1), None)
    if wrong is not None:
        raise DataError(
            f"{file}, row {wrong}: a template needs {PLACE} once, for the name of the class.\n"
            f"Write for example: a photo of a {PLACE}."
        )
    return tuple(line for _, line in lines)
