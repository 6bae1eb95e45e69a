"""Tables as files: CSV and TSV with a header line, and JSON lines, read as records with named fields."""

from __future__ import annotations

import contextlib
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from madtp_cli.data import files
from madtp_cli.data.parsing import records
from madtp_cli.data.parsing.columns import looks_like_image
from madtp_cli.data.parsing.json_sniffing import PEEK_BYTES, first_objects
from madtp_cli.data.parsing.records import Record
from madtp_cli.errors import DataError

#: Possible delimiters, the most reliable first: captions contain no tabs but many commas.
DELIMITERS = "\t|;,"
#: Tables with these delimiters are not quoted: a quote in a cell is a part of the text.
UNQUOTED = "\t|"
#: A delimiter must divide this many first lines into equally many cells.
_LINES_TRIED = 20


def first_rows(file: Path) -> list[dict[str, Any]]:
    """Return the first rows of a table; none if the file is not a table."""
    text, continues = files.beginning(file, PEEK_BYTES)
    if _is_json(text):
        return first_objects(file)
    # The last line may be incomplete, so it is dropped.
    text = text[: text.rfind("\n") + 1] if continues else text
    delimiter = None if "\0" in text else _delimiter(text)
    if delimiter is None:
        return []
    try:
        lines = [cells for cells in _cells(text, delimiter) if cells]
    except csv.Error:  # reading the whole table reports the row
        lines = [[cell.strip(' "') for cell in line.split(delimiter)] for line in text.splitlines()]
    header, *rows = lines or [[]]
    return [dict(zip(header, cells, strict=False)) for cells in rows]


def load(file: Path) -> list[Record]:
    """Return all rows of a table; row 1 is the first below the header.

    Raises:
        DataError: The file is empty or broken, or a row has too many or too few cells.
    """
    if _is_json(files.beginning(file, PEEK_BYTES)[0]):
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
    text = files.read_text(file)
    delimiter = _delimiter(text[:PEEK_BYTES]) or ","
    lines: list[list[str]] = []
    try:
        for cells in _cells(text, delimiter):
            if cells:
                _refuse_merged_lines(file, len(lines), cells, delimiter)
                lines.append(cells)
    except csv.Error as error:
        raise Record(file, len(lines), {}).error(
            f"its quotes are wrong: {error}", 'Put a cell with quotes in quotes, and double those inside: "a ""b"" c".'
        ) from error
    if not lines:
        raise DataError(f"{file} is empty.\nDownload or write it again, or remove it.")
    _refuse_equal_names(file, lines[0])
    return lines[0], lines[1:]


def _refuse_merged_lines(file: Path, row: int, cells: list[str], delimiter: str) -> None:
    """Raise a DataError for a cell with a line end and a delimiter after it: a quote before them was never closed."""
    if any(delimiter in cell.partition("\n")[2] for cell in cells if "\n" in cell):
        raise Record(file, row, {}).error(
            "a cell goes on over the end of its line and holds a row", "Close the quote of the cell, or remove it."
        )


def _refuse_equal_names(file: Path, header: list[str]) -> None:
    twice = [name for name, number in Counter(header).items() if number > 1 and name]
    if twice:
        raise DataError(f"{file} has several columns named {records.shortened(twice[0])}.\nRename all but one of them.")


def lacks_header(names: Iterable[str]) -> bool:
    """Return whether the cells that should be column names contain the name of an image."""
    return any(map(looks_like_image, names))


def _is_json(beginning: str) -> bool:
    return beginning.lstrip()[:1] in ("{", "[")


def _delimiter(text: str) -> str | None:
    """The delimiter that divides the first lines into equally many cells, more than one."""
    for delimiter in DELIMITERS:
        widths: set[int] = set()
        with contextlib.suppress(csv.Error):
            widths.update(
                len(cells) for _, cells in zip(range(_LINES_TRIED), _cells(text, delimiter), strict=False) if cells
            )
        if len(widths) == 1 and widths.pop() > 1:
            return delimiter
    return next((delimiter for delimiter in DELIMITERS if delimiter in text.partition("\n")[0]), None)


def _cells(text: str, delimiter: str) -> Iterator[list[str]]:
    # Kaggle's Flickr30k has the header "image| comment", in which the space is not part of the name.
    lines = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        skipinitialspace=True,
        quoting=csv.QUOTE_NONE if delimiter in UNQUOTED else csv.QUOTE_MINIMAL,
        strict=True,
    )
    return ([cell.strip() for cell in cells] for cells in lines)
