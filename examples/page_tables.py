"""Tables of a Markdown page, so that a run which measures some lines keeps the others as they are on the page."""

from __future__ import annotations

from collections.abc import Sequence

#: The first cells of a line, which say what it is about.
Key = tuple[str, ...]


def heading_of(introduction: str) -> str:
    """Return the first heading in the text before a table."""
    return next(line for line in introduction.splitlines() if line.startswith("#"))


def section(page: str, heading: str) -> list[str]:
    """Return the lines between a heading and the next one; none if the page does not have it."""
    lines = page.splitlines()
    if heading not in lines:
        return []
    rest = lines[lines.index(heading) + 1 :]
    end = next((number for number, line in enumerate(rest) if line.startswith("#")), len(rest))
    return rest[:end]


def cells(line: str) -> list[str]:
    """Return the cells of a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(page: str, heading: str) -> list[list[str]]:
    """Return the lines of the table under a heading as cells, its head first; nothing if there is none."""
    return [cells(line) for line in section(page, heading) if line.startswith("| ")]


def complete(introduction: str, keys: Sequence[Key], measured: Sequence[str], page: str) -> list[str]:
    """Return a table with the measured lines, and those of the page where nothing was measured.

    Args:
        introduction: The text before the table and the head of the table; it begins with the heading.
        keys: First cells of all lines in their order.
        measured: The new lines.
        page: The page as it is.
    """
    lines = [*section(page, heading_of(introduction)), *measured]
    known = {tuple(cells(line)[: len(keys[0])]): line for line in lines}
    return [introduction, *(known[key] for key in keys if key in known)]
