"""The file of `--samples-out`: one record per sample, as JSON lines or as a Parquet table."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from madtp_cli.checkpoint.atomic_write import check_output_file, write_file
from madtp_cli.data.parsing import parquet
from madtp_cli.errors import DataError, UsageError, install_command
from madtp_cli.reporting.samples import SampleRecord

#: Name of the records in a folder that `madtp compress` writes.
FILE_NAME = "samples.jsonl"
#: Ending of a file that becomes a Parquet table.
PARQUET = ".parquet"


def check(file: Path | None) -> None:
    """Check before a run that its records can be written. Records of an earlier run are replaced.

    Raises:
        OutputError: The file cannot be written, or it exists and holds something else.
        UsageError: The package for Parquet is not installed.
    """
    if file is None:
        return
    check_output_file(file, overwrite=_holds_records(file))
    if file.suffix == PARQUET:
        _pyarrow("pyarrow")


def write(file: Path, records: Sequence[SampleRecord]) -> None:
    """Write the records.

    Raises:
        OutputError, UsageError: As in `check`.
    """
    with write_file(file, overwrite=_holds_records(file)) as new:
        if file.suffix == PARQUET:
            table = _pyarrow("pyarrow").Table.from_pylist([record.model_dump() for record in records])
            _pyarrow("pyarrow.parquet").write_table(table, new)
        else:
            new.write_text(text(records), encoding="utf-8")


def text(records: Sequence[SampleRecord]) -> str:
    """Return the records as JSON lines. Characters beyond ASCII are escaped, so any identifier can be encoded."""
    return "".join(json.dumps(record.model_dump()) + "\n" for record in records)


def read(file: Path) -> list[SampleRecord]:
    """Read the records of a file.

    Raises:
        DataError: The file cannot be read, or a row is not a record.
    """
    records: list[SampleRecord] = []
    try:
        for row in _rows(file):
            records.append(SampleRecord.model_validate(row))  # noqa: PERF401  an error names the number of the row
    except (OSError, ValueError) as error:  # ValidationError is a ValueError
        reason = str(error).split("\n")[0]
        if isinstance(error, ValidationError):
            reason = f"{'.'.join(map(str, error.errors()[0]['loc']))[:100]} is not as --samples-out writes it"
        raise DataError(f"{file}, row {len(records) + 1}: {reason}.\nMeasure the samples again.") from error
    return records


def _rows(file: Path) -> Iterator[Any]:
    if parquet.is_parquet(file):
        yield from parquet.rows(file)
        return
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _holds_records(file: Path) -> bool:
    """Return whether a file exists whose first row is a record."""
    try:
        return file.is_file() and isinstance(SampleRecord.model_validate(next(_rows(file), None)), SampleRecord)
    except (DataError, OSError, ValueError, RecursionError):
        return False


def _pyarrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"--samples-out: a {PARQUET} file needs the package pyarrow, which is not installed.\n"
            f"Install it, or write a .jsonl file: {install_command('pyarrow')}"
        ) from error
