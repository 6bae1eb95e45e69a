"""The result of `madtp data`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table

from madtp_cli.cli.formatting import count, line
from madtp_cli.cli.results import _shared
from madtp_cli.reporting.schema import DataReport, RowsPart, SamplePart, TaskPart


def show(report: DataReport, out: Console) -> None:
    """Print rows and images by split, some rows, and the images that cannot be used."""
    tasks = _grouped(report.tasks)
    out.print(_table(report, tasks))
    for text in (*_samples(tasks), *_faults(report), *_shared.note_lines(report.notes)):
        out.print(text)


def _grouped(tasks: Mapping[str, TaskPart]) -> dict[str, TaskPart]:
    """Join the tasks that have the same rows under one name, such as "caption, retrieval"."""
    groups: list[tuple[list[str], TaskPart]] = []
    for name, part in tasks.items():
        rows = part.model_copy(update={"cut_texts": {}})
        same = next((names for names, other in groups if other == rows), None)
        same.append(name) if same else groups.append(([name], rows))
    return {", ".join(names): part for names, part in groups}


def _table(report: DataReport, tasks: Mapping[str, TaskPart]) -> Table:
    layouts = " and ".join(dict.fromkeys(part.layout for part in tasks.values()))
    table = _shared.table(line(f"{report.path}: {layouts}"), "", *report.images)
    for names, task in tasks.items():
        splits = [task.splits.get(split) for split in report.images]
        table.add_row(names)
        table.add_row("  rows", *[f"{part.rows:,}" if part else "" for part in splits])
        balances = [_balance(part) if part else ("", "") for part in splits]
        if kind := next((kind for kind, _ in balances if kind), ""):
            table.add_row(f"  {kind}", *[figure for _, figure in balances])
    parts = report.images.values()
    table.add_row("images", *[f"{part.images:,}" for part in parts])
    table.add_row("missing images", *[f"{part.missing:,}" for part in parts])
    table.add_row("unreadable images", *[f"{part.unreadable:,} of {part.checked:,} checked" for part in parts])
    return table


def _balance(part: RowsPart) -> tuple[str, str]:
    """Say what the balance of a task's rows is about, and give the figure of a split."""
    if part.true_percent is not None:
        return "true", f"{part.true_percent:.1f} %"
    if part.most_common_answers is not None:
        shares = part.most_common_answers[:3]
        return "common answers", "\n".join(f"{line(share.answer)} {share.percent:.1f} %" for share in shares)
    captions = part.captions_per_image
    if captions is None:
        return "", ""
    same = captions.least == captions.most
    number = f"{captions.least}" if same else f"{captions.least} to {captions.most}, mean {captions.mean:.1f}"
    return "captions per image", number


def _samples(tasks: Mapping[str, TaskPart]) -> Iterator[str]:
    """Yield the first rows of each task."""
    for names, task in tasks.items():
        yield from (f"{names}: {_sample(row)}" for row in task.samples)


def _sample(row: SamplePart) -> str:
    """Write a row on one line: split and identifier, images, text if it has one, label or other correct texts."""
    answer = "" if row.label is None else f" > {'true' if row.label else 'false'}"
    others = dict.fromkeys(text for text in row.references if text != row.text)
    answer += f" ({'; '.join(others)})" if others else ""
    content = f": {row.text}{answer}" if row.text or answer else ""
    return line(f"{row.split} {row.identifier}, {', '.join(row.images)}{content}")


def _faults(report: DataReport) -> Iterator[str]:
    """Yield the images that are missing, unreadable or in two splits."""
    for part in report.images.values():
        yield from (f"Missing image: {line(name)}" for name in part.missing_first)
        yield from (f"Unreadable image: {line(complaint)}" for complaint in part.unreadable_first)
    for twice in report.duplicates:
        names = line(", ".join(twice.first))
        yield f"Warning: {count(twice.images, 'image')} in both {' and '.join(twice.splits)}: {names}"
