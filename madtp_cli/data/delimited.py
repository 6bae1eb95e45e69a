"""CSV and TSV files with a header line, and JSON lines, as records of named columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from madtp_cli.data import records
from madtp_cli.data.columns import looks_like_image
from madtp_cli.data.json_sniffing import PEEK_BYTES, beginning
from madtp_cli.data.records import Record
from madtp_cli.errors import DataError

#: Between the cells of a line, the likeliest first: a tab stands in no caption, a comma in many.
DELIMITERS = "\t|;,"
#: Lines that must have as many cells as the header for a file to be a table.
_TRIED = 20


def peek(file: Path) -> list[dict[str, Any]]:
    """The first rows of a table; none if the file is something else."""
    opening = _opening(file)
    if _is_json(opening):
        return beginning(file)
    # What is cut off at the end of a peek is not judged.
    text = opening.decode("utf-8-sig", errors="replace")
    text = text[: text.rfind("\n") + 1] if len(opening) == PEEK_BYTES else text
    delimiter = None if "\0" in text else _delimiter(text)
    if delimiter is None:
        return []
    try:
        header, *rows = [cells for cells in _cells(text, delimiter) if cells]
    except csv.Error:
        return []
    return [dict(zip(header, cells, strict=False)) for cells in rows]


def load(file: Path) -> list[Record]:
    """All rows of a table, counted from 1 below the header.

    Raises:
        DataError: The file is empty or broken, or a row has too many or too few cells.
    """
    if _is_json(_opening(file)):
        return records.load(file)
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 (byte {error.start}).\nSave the table as UTF-8.") from error
    try:
        header, *rows = [cells for cells in _cells(text, _delimiter(text[:PEEK_BYTES]) or ",") if cells]
    except (csv.Error, ValueError) as error:
        raise DataError(f"{file} is no table with a header line: {error}.\nFetch or write it again.") from error
    if lacks_header(header):
        raise DataError(
            f"{file} begins with a row.\nAdd a line above it that names the columns, such as image,caption."
        )
    found = []
    for number, cells in enumerate(rows, 1):
        record = Record(file, number, dict(zip(header, cells, strict=False)))
        if len(cells) != len(header):
            names = ", ".join(header)
            raise record.error(f"{len(cells)} cells for {len(header)} columns ({names})", "Quote cells with commas.")
        found.append(record)
    if not found:
        raise DataError(f"{file} is empty.\nFetch or write it again, or remove it.")
    return found


def lacks_header(names: Iterable[str]) -> bool:
    """Whether what should name the columns of a table already names an image."""
    return any(map(looks_like_image, names))


def _opening(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(PEEK_BYTES)


def _is_json(opening: bytes) -> bool:
    return opening.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _delimiter(text: str) -> str | None:
    """What cuts the first lines into equally many cells, more than one."""
    for delimiter in DELIMITERS:
        try:
            widths = {len(cells) for _, cells in zip(range(_TRIED), _cells(text, delimiter), strict=False) if cells}
        except csv.Error:
            continue
        if len(widths) == 1 and widths.pop() > 1:
            return delimiter
    return next((d for d in DELIMITERS if d in text.partition("\n")[0]), None)


def _cells(text: str, delimiter: str) -> Iterator[list[str]]:
    # Kaggle's Flickr30k writes "image| comment": the blank is no part of the name.
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    return ([cell.strip() for cell in cells] for cells in lines)
