"""Tables as files: CSV and TSV with a header line, and JSON lines, read as records with named fields."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from madtp_cli.data.parsing import records
from madtp_cli.data.parsing.columns import looks_like_image
from madtp_cli.data.parsing.json_sniffing import PEEK_BYTES, first_objects
from madtp_cli.data.parsing.records import Record
from madtp_cli.errors import DataError

#: Possible delimiters, the most reliable first: captions contain no tabs but many commas.
DELIMITERS = "\t|;,"
#: A delimiter must divide this many first lines into equally many cells.
_LINES_TRIED = 20


def first_rows(file: Path) -> list[dict[str, Any]]:
    """Return the first rows of a table; none if the file is not a table."""
    beginning = _beginning(file)
    if _is_json(beginning):
        return first_objects(file)
    text = beginning.decode("utf-8-sig", errors="replace")
    # The last line may be incomplete, so it is dropped.
    text = text[: text.rfind("\n") + 1] if len(beginning) == PEEK_BYTES else text
    delimiter = None if "\0" in text else _delimiter(text)
    if delimiter is None:
        return []
    try:
        header, *rows = [cells for cells in _cells(text, delimiter) if cells]
    except csv.Error:
        return []
    return [dict(zip(header, cells, strict=False)) for cells in rows]


def load(file: Path) -> list[Record]:
    """Return all rows of a table; row 1 is the first below the header.

    Raises:
        DataError: The file is empty or broken, or a row has too many or too few cells.
    """
    if _is_json(_beginning(file)):
        return records.load(file)
    header, rows = _read_cells(file)
    if lacks_header(header):
        raise DataError(
            f"{file} begins with a row and has no header.\n"
            "Add a first line with the names of the columns, such as image,caption."
        )
    if not rows:
        raise DataError(f"{file} is empty.\nDownload or write it again, or remove it.")
    loaded = []
    for number, cells in enumerate(rows, 1):
        record = Record(file, number, dict(zip(header, cells, strict=False)))
        if len(cells) != len(header):
            names = ", ".join(header)
            raise record.error(
                f"{len(cells)} cells for {len(header)} columns ({names})", "Put cells that contain commas in quotes."
            )
        loaded.append(record)
    return loaded


def _read_cells(file: Path) -> tuple[list[str], list[list[str]]]:
    """The cells of the header, and those of each row that is not blank."""
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8 (byte {error.start}).\nSave the table as UTF-8.") from error
    try:
        header, *rows = [cells for cells in _cells(text, _delimiter(text[:PEEK_BYTES]) or ",") if cells]
    except (csv.Error, ValueError) as error:
        raise DataError(f"{file} is not a table with a header line: {error}.\nDownload or write it again.") from error
    return header, rows


def lacks_header(names: Iterable[str]) -> bool:
    """Return whether the cells that should be column names contain the name of an image."""
    return any(map(looks_like_image, names))


def _beginning(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(PEEK_BYTES)


def _is_json(beginning: bytes) -> bool:
    return beginning.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _delimiter(text: str) -> str | None:
    """The delimiter that divides the first lines into equally many cells, more than one."""
    for delimiter in DELIMITERS:
        try:
            widths = {
                len(cells) for _, cells in zip(range(_LINES_TRIED), _cells(text, delimiter), strict=False) if cells
            }
        except csv.Error:
            continue
        if len(widths) == 1 and widths.pop() > 1:
            return delimiter
    return next((delimiter for delimiter in DELIMITERS if delimiter in text.partition("\n")[0]), None)


def _cells(text: str, delimiter: str) -> Iterator[list[str]]:
    # Kaggle's Flickr30k has the header "image| comment", in which the space is not part of the name.
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    return ([cell.strip() for cell in cells] for cells in lines)
