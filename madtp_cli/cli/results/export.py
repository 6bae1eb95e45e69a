"""The result of `madtp export`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console


def show(written: Mapping[str, Any], out: Console) -> None:
    """Print the file with its inputs and outputs, the check, and the notes."""
    for text in lines(written):
        out.print(text)


def lines(written: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the result."""
    size = f"{written['size'] / 1e6:,.1f} MB"
    yield f"{written['file']}: task {written['task']}, format {written['format']}, {size}"
    for kind in ("inputs", "outputs"):
        for number, (name, shape) in enumerate(written[kind].items()):
            yield f"  {'' if number else kind:<9} {name} [{', '.join(map(str, shape))}]"
    yield _check(written["checked"])
    for note in written["notes"]:
        yield f"Note: {note}"


def _check(checked: Mapping[str, Any]) -> str:
    """State what was compared, the largest difference and the tolerance."""
    batches = ", ".join(map(str, checked["batches"]))
    kept = checked["kept"]
    tokens = "" if kept is None else f" Images keep {kept[0]} to {kept[1]} tokens."
    return (
        f"Checked on {checked['samples']} random samples in batches of {batches}, with texts of "
        f"{checked['tokens'][0]} to {checked['tokens'][1]} tokens.{tokens}\n"
        f"Largest difference from the outputs of the model: {checked['difference']:.1e} "
        f"(tolerance {checked['tolerance']:g})."
    )
