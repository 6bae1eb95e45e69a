"""The times that `madtp profile --time` measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from madtp_cli.cli.formatting import count, digits
from madtp_cli.cli.results import _shared
from madtp_cli.reporting.schema import LatencyPart, TimesPart

#: Padding below this share of the executed multiply-adds is not mentioned.
SMALLEST_SHARE = 0.0005
EXPLANATION = (
    "Realised efficiency is the speed-up divided by the reduction of multiply-adds: at 100 %, time falls as much as "
    "multiply-adds."
)


def show(parts: Sequence[LatencyPart], out: Console) -> None:
    """Print a row for each model and batch size, then what they mean."""
    some, turns = parts[0], min(part.repeats for part in parts)
    where = f"{some.device}, {some.dtype}, {count(some.threads, 'thread')}"
    columns = ("batch, model", "ms", "5-95 %", "ms/sample", "samples/s", "peak MB")
    table = _shared.table(f"Forward passes on {where}; medians of {count(turns, 'turn')} or more", *columns)
    for part in parts:
        for row in rows(part):
            table.add_row(*row)
    out.print(table)
    for part in parts:
        out.print(summary(part))
    if any(part.efficiency is not None for part in parts):
        out.print(EXPLANATION)


def rows(part: LatencyPart) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one batch size: the dense model, then the pruned one if it was timed."""
    models: dict[str, TimesPart | None] = {"dense": part.dense, "pruned": part.pruned}
    for name, taken in models.items():
        if taken is not None:
            yield (
                f"{part.batch_size}, {name}",
                digits(taken.median_ms),
                f"{digits(taken.p5_ms)}-{digits(taken.p95_ms)}",
                digits(taken.median_ms / part.batch_size),
                digits(taken.samples_per_second),
                "" if taken.peak_memory_mb is None else digits(taken.peak_memory_mb),
            )


def summary(part: LatencyPart) -> str:
    """Compare the pruned with the dense model in one sentence; state the speed of a dense model that is alone."""
    dense, pruned = part.dense, part.pruned
    if pruned is None:
        rate = digits(dense.gflops * dense.samples_per_second)
        return f"Batch size {part.batch_size}: {rate} GFLOPs per second{_padding(dense)}."
    memory = ""
    if pruned.peak_memory_mb is not None and dense.peak_memory_mb is not None:
        memory = f", peak memory {pruned.peak_memory_mb / dense.peak_memory_mb:.2f}x"
    return f"Batch size {part.batch_size}: {_speed(part)}{memory}{_padding(pruned)}."


def _speed(part: LatencyPart) -> str:
    """Compare time and multiply-adds of both models."""
    if part.speedup is None or part.flops_ratio is None or part.efficiency is None:
        raise ValueError("the report lacks the comparison of the two models")
    slower = " (slower than dense)" if part.speedup < 1 else ""
    speed = f"speed-up {part.speedup:.2f}x{slower}"
    if part.flops_ratio <= 1:
        return f"{speed}; nothing is saved, the pruned model needs {1 / part.flops_ratio:.2f}x the multiply-adds"
    return (
        f"{speed} with {part.flops_ratio:.2f}x fewer multiply-adds, realised efficiency {100 * part.efficiency:.0f} %"
    )


def _padding(taken: TimesPart) -> str:
    share = 1 - taken.gflops / taken.executed_gflops
    return f", {100 * share:.1f} % of the executed multiply-adds are padding" if share >= SMALLEST_SHARE else ""
