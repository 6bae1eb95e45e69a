"""Find the texts of a data set that are longer than the model reads, before the work starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from madtp_cli.data import Dataset, Row, sharing
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CutTextsPart
from madtp_cli.tasks import Task

#: Number of cut texts that a report names.
NAMED_TEXTS = 3
#: Rows of one pass over the texts. Data with more rows show their progress.
ROWS_AT_ONCE = 20_000
#: Characters of a text in a note.
NOTE_CHARACTERS = 60


def find(task: Task, data: Dataset, processor: Any, limit: int | None, progress: ProgressReporter) -> CutTextsPart:
    """Return how many texts of a data set are cut, and the first of them.

    Args:
        task: States the texts of a row, and how each kind of text is cut.
        data: The data set.
        processor: The processor of the model.
        limit: Maximum number of rows of each split; None for all.
        progress: Receives the number of rows done, if there are many.
    """
    parts = [
        rows[start : start + ROWS_AT_ONCE]
        for rows in (_at_most(data, of_split, limit) for of_split in data.splits.values())
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    many = len(parts) > len(data.splits)
    if many:
        progress.start("Looking for long texts", sum(map(len, parts)))
    counted, cut, done = 0, list[str](), 0
    for part in (*parts, ()):  # the last one has the texts that belong to no row
        read, found = _cut(task, part, processor)
        counted, done, cut = counted + read, done + len(part), cut + found
        if many:
            progress.advance(done)
    if many:
        progress.finish()
    return CutTextsPart(count=len(cut), texts=counted, first=list(dict.fromkeys(cut))[:NAMED_TEXTS])


def _at_most(data: Dataset, rows: Sequence[Row], limit: int | None) -> Sequence[Row]:
    return rows if limit is None else sharing.some(rows, limit, data.choose)


def _cut(task: Task, rows: Sequence[Row], processor: Any) -> tuple[int, list[str]]:
    """Return the number of texts of the rows, and those that are cut."""
    texts = task.texts(rows)
    cut = [text for kind, of_kind in texts.items() for text in kind.cut(of_kind, processor)]
    return sum(map(len, texts.values())), cut


def limits(task: Task, processor: Any) -> str:
    """Return what a model reads of the texts of a task, in words: "40 words and 48 tokens"."""
    parts = []
    for kind in task.texts(()):
        limit = kind.limit(processor)
        words = "" if limit.words is None else f"{limit.words} words and "
        role = kind.name.partition(" ")[2]
        parts.append(f"{words}{limit.tokens} tokens" + (f" per {role}" if role else ""))
    return ", ".join(parts)


def note(found: CutTextsPart, reads: str) -> list[str]:
    """Return the note about cut texts; an empty list if none is cut.

    Args:
        found: From `find`.
        reads: From `limits`.

    >>> note(CutTextsPart(count=1, texts=1200, first=["a very long text"]), "40 words and 48 tokens")
    ['1 of 1,200 texts is cut: the model reads 40 words and 48 tokens. It is: "a very long text".']
    """
    if not found.count:
        return []
    first = ", ".join(f'"{_shortened(text)}"' for text in found.first)
    verb, named = ("is", "It is") if found.count == 1 else ("are", "The first are")
    return [f"{found.count:,} of {found.texts:,} texts {verb} cut: the model reads {reads}. {named}: {first}."]


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= NOTE_CHARACTERS else f"{words[: NOTE_CHARACTERS - 3].rstrip()}..."
