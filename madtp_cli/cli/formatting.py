"""How parts of a report read on one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from madtp_cli.reporting.schema import (
    ExportReport,
    GenerationPart,
    LatencyPart,
    RowsPart,
    SamplePart,
    TaskPart,
    TimesPart,
)

#: Letters of a line that came from somebody's data.
LONGEST = 300
#: Of the multiply-adds that were executed: less padding than this is not worth a word.
SMALLEST_SHARE = 0.0005


def answering(part: GenerationPart) -> str:
    """What answers cost beside the forward."""
    pruned = "" if part.pruned is None else f", pruned {part.pruned:.4g} ({part.share:.3f}x)"
    return f"Beside, GFLOPs per answer: dense {part.dense:.4g}{pruned}, for {part.what}; no part of a budget"


def times(part: LatencyPart) -> Iterator[tuple[str, ...]]:
    """The rows of one batch size: batch, model, milliseconds of a batch, their range and of a sample, speed, memory."""
    models: dict[str, TimesPart | None] = {"dense": part.dense, "pruned": part.pruned}
    for name, taken in models.items():
        if taken is not None:
            yield (
                str(part.batch_size),
                name,
                _figure(taken.median_ms),
                f"{_figure(taken.p5_ms)} to {_figure(taken.p95_ms)}",
                _figure(taken.median_ms / part.batch_size),
                _figure(taken.samples_per_second),
                "" if taken.peak_memory_mb is None else _figure(taken.peak_memory_mb),
            )


def realised(part: LatencyPart) -> str:
    """How much faster for how many fewer multiply-adds, the memory beside dense, and what went into padding."""
    said, dense, pruned = f"Batch {part.batch_size}:", part.dense, part.pruned
    if pruned is None or part.speedup is None or part.flops_ratio is None or part.efficiency is None:
        return f"{said} {_figure(dense.gflops * dense.samples_per_second)} GFLOPs per second{_padding(dense)}"
    saved = f"for {part.flops_ratio:.2f}x fewer multiply-adds, a realised efficiency of {100 * part.efficiency:.0f} %"
    if part.flops_ratio <= 1:
        saved = f"and saves no multiply-adds, but costs {1 / part.flops_ratio:.2f}x of dense"
    said = f"{said} {'slower than dense, ' if part.speedup < 1 else ''}{part.speedup:.2f}x as fast {saved}"
    if pruned.peak_memory_mb is not None and dense.peak_memory_mb is not None:
        said += f"; peak memory {pruned.peak_memory_mb / dense.peak_memory_mb:.2f}x"
    return said + _padding(pruned)


def _padding(taken: TimesPart) -> str:
    share = 1 - taken.gflops / taken.executed_gflops
    return f"; {100 * share:.1f} % of what it executes is padding" if share >= SMALLEST_SHARE else ""


def _figure(value: float) -> str:
    """Three digits or more, for columns.

    >>> _figure(0.456), _figure(4.56), _figure(45.6), _figure(4567.8)
    ('0.456', '4.56', '45.6', '4,568')
    """
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def exported(report: ExportReport) -> str:
    """What `export` wrote, and the result of its check."""
    lines = [f"{report.file}: {report.task} as {report.format}, {report.size_bytes / 1e6:,.1f} MB"]
    for title, tensors in (("inputs", report.inputs), ("outputs", report.outputs)):
        shapes = [f"{name} [{', '.join(map(str, shape))}]" for name, shape in tensors.items()]
        lines += [f"  {title:<9} {shapes[0]}", *[f"  {'':<9} {shape}" for shape in shapes[1:]]]
    check, kept = report.check, report.check.kept_image_tokens
    kept_tokens = "" if kept is None else f", {kept[0]} to {kept[1]} kept tokens per image"
    lines.append(
        f"Checked on {check.samples} random samples in batches of {', '.join(map(str, check.batch_sizes))}, texts of "
        f"{check.text_tokens[0]} to {check.text_tokens[1]} tokens{kept_tokens}: the outputs differ from the model's by "
        f"at most {check.max_difference:.1e} ({check.tolerance:g} is allowed)."
    )
    return "\n".join([*lines, *report.notes])


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
