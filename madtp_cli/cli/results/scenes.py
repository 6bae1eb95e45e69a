"""The result of `madtp scenes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from madtp_cli.cli.results import _shared

TEXT_ONLY = (
    "Text only: accuracy on the test split of a classifier that reads the texts and sees no images. "
    "A value near chance means that the images are needed."
)


def show(written: Mapping[str, Any], out: Console) -> None:
    """Print the rows of each split, and how to use the folder."""
    out.print(_table(written))
    if written["text_only"]:
        out.print(TEXT_ONLY)
    has_texts = any(split["texts"] for split in written["splits"].values())
    task = "" if has_texts else f" --task {written['task']}"  # a checkpoint also has a task with texts
    out.print(f"Use it: madtp compress CHECKPOINT --gflops-budget 0.2{task} --data {written['folder']}")


def _table(written: Mapping[str, Any]) -> Table:
    """Make a row for each kind of text, or for images and captions where there are no kinds."""
    splits = written["splits"].values()
    kinds = sorted({kind for split in splits for kind in split["kinds"]})
    title, columns = str(written["folder"]), [*written["splits"], *(["text only"] if kinds else [])]
    if not kinds:
        table = _shared.table(title, "", *columns)
        table.add_row("images", *[f"{split['rows']:,}" for split in splits])
        if any(split["texts"] for split in splits):
            table.add_row("captions", *[f"{split['texts']:,}" for split in splits])
        return table
    meaning = "true" if any(split["true_percent"] is not None for split in splits) else "the most common answer"
    table = _shared.table(f"{title}: rows by kind, in brackets the share of {meaning}", "kind", *columns)
    for kind in ("all", *kinds):
        table.add_row(kind, *[_rows(split, kind) for split in splits], _text_only(written["text_only"].get(kind)))
    return table


def _rows(split: Mapping[str, Any], kind: str) -> str:
    """Write the rows of a kind, and the percentage that is true or has the most common answer."""
    overall = split["rows"], split["true_percent"] or split["commonest_percent"] or 0
    rows, percent = overall if kind == "all" else split["kinds"].get(kind, (0, 0))
    return f"{rows:,} ({percent:.1f} %)" if rows else "0"


def _text_only(result: Mapping[str, Any] | None) -> str:
    return f"{result['accuracy']:.1f} % of {result['samples']:,}" if result else ""
