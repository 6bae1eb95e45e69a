"""The result of `madtp inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from madtp_cli.cli.formatting import first
from madtp_cli.cli.results import _shared
from madtp_cli.reporting import wording


def show(found: Mapping[str, Any], out: Console) -> None:
    """Print the format, the task and the sizes of a checkpoint, and whether `madtp compress` can use it."""
    table = _shared.table(found["source"], "", "", header=False)
    table.columns[1].justify = "left"
    for row in (*_description(found), *_comparison(found)):
        table.add_row(*row)
    out.print(table)
    for text in _shared.note_lines(found["notes"]):
        out.print(text)
    if found["refusal"]:
        out.print(f"Cannot be compressed: {found['refusal']}")
    elif found["missing"] or found["reshaped"]:
        out.print("Cannot be compressed: the file is incomplete or inconsistent. Download or copy it again.")


def _description(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield rows on what the checkpoint is."""
    yield "format", found["format"]
    yield "task", found["task"]
    for tower, sizes in found["towers"].items():
        described = ", ".join(f"{name.replace('_', ' ')} {size}" for name, size in sizes.items())
        yield f"{wording.tower_name(tower)} tower", described
    yield "parameters", f"{found['parameters']:,} ({found['precision']})"


def _comparison(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield rows on how the weights of the file fit the model."""
    missing, unexpected = found["missing"], found["unexpected"]
    if not found["refusal"]:
        yield "weights", f"{found['matched']} matched, {len(missing)} missing, {len(unexpected)} unexpected"
    if missing:
        yield "missing", first(missing)
    if unexpected:
        yield "unexpected", first(unexpected)
    for key, (file, model) in found["reshaped"].items():
        yield "other shape", f"{key}: {file} in the file, {model} in the model"
    for reason, keys in found["dropped"].items():
        yield "left out", f"{len(keys)} {reason}"
