"""How parts of `madtp data`'s report read on one line."""

from __future__ import annotations

from collections.abc import Mapping

from madtp_cli.report import RowsPart, SamplePart, TaskPart

#: Letters of a line that came from somebody's data.
LONGEST = 300


def alike(tasks: Mapping[str, TaskPart]) -> dict[str, TaskPart]:
    """Tasks whose rows are the same under one name, as "caption, retrieval"."""
    groups: list[tuple[list[str], TaskPart]] = []
    for name, part in tasks.items():
        same = next((names for names, other in groups if other == part), None)
        same.append(name) if same else groups.append(([name], part))
    return {", ".join(names): part for names, part in groups}


def balance(part: RowsPart | None) -> str:
    """Rows of a split and how they are distributed."""
    if part is None:
        return ""
    if part.true_percent is not None:
        return f"{part.rows:,} ({part.true_percent:.1f} % true)"
    if part.commonest_answers is not None:
        answers = ", ".join(f"{line(answer)} {percent:.1f} %" for answer, percent in part.commonest_answers[:3])
        return f"{part.rows:,} ({answers})"
    count = part.captions_per_image
    if count is None:
        return f"{part.rows:,}"
    number = f"{count.least}" if count.least == count.most else f"{count.least} to {count.most}, mean {count.mean:.1f}"
    return f"{part.rows:,} (captions per image: {number})"


def sample(row: SamplePart) -> str:
    """A row on one line: where it is from, its images, its words and what is right."""
    answer = "" if row.label is None else f" > {bool(row.label)}"
    others = [text for text in row.references if text != row.text]
    answer += f" ({'; '.join(others)})" if others else ""
    return line(f"{row.split} {row.identifier}, {', '.join(row.images)}: {row.text}{answer}")


def line(text: str) -> str:
    r"""Text from others on one line; escape codes in it would speak to the terminal.

    >>> line("a\x1b[31mb\nc")
    'a [31mb c'
    """
    printed = "".join(letter if letter.isprintable() else " " for letter in text)
    return printed if len(printed) <= LONGEST else printed[: LONGEST - 3] + "..."
