"""The result of `madtp compress`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from madtp_cli.cli.formatting import count
from madtp_cli.cli.results import _shared
from madtp_cli.reporting import wording
from madtp_cli.reporting.schema import ChangePart, CompressReport, LatencyPart, LayerPart


def show(report: CompressReport, out: Console) -> None:
    """Print the table of dense and pruned model, then the lines that explain it."""
    out.print(_table(report))
    for text in _lines(report):
        out.print(text)


def _table(report: CompressReport) -> Table:
    quality, gflops = report.quality, report.gflops
    samples = count(quality.samples, f"{quality.split} sample")
    title = f"{report.output}: {samples} of {report.data}"
    table = _shared.table(title, "", "dense", "pruned", "change", "95 % interval")
    table.add_row("GFLOPs per sample", f"{gflops.dense:.4g}", f"{gflops.pruned:.4g}", f"{gflops.share:.3f}x")
    for row in _quality_rows(quality):
        table.add_row(*row)
    table.add_row(*_latency_row(report.latency))
    return table


def _quality_rows(part: ChangePart) -> Iterator[tuple[str, ...]]:
    """Yield the row of the metric, then a row for each further figure."""
    points = part.unit == "points"
    yield (
        f"{part.metric}, %" if points and part.value_unit == "percent" else part.metric,
        f"{part.dense:.2f}",
        f"{part.pruned:.2f}",
        f"{part.change:+.2f} {'points' if points else '%'}",
        f"{part.interval95.low:+.2f} to {part.interval95.high:+.2f}",
    )
    for name, both in part.parts.items():
        yield f"  {name}, %", f"{both.dense:.2f}", f"{both.pruned:.2f}", f"{both.pruned - both.dense:+.2f} points"


def _latency_row(part: LatencyPart) -> tuple[str, ...]:
    return "ms per sample", f"{part.dense_ms:.2f}", f"{part.pruned_ms:.2f}", f"speed-up {part.speedup:.2f}x"


def _lines(report: CompressReport) -> Iterator[str]:
    latency, budget = report.latency, report.budget
    yield (
        f"Timed in batches of {latency.batch_size} on {latency.device} in {latency.dtype} with "
        f"{count(latency.threads, 'thread')}."
    )
    yield (
        f"Budget {budget.requested}: the pruned model uses {budget.achieved_val:.4g} of {budget.gflops:.4g} GFLOPs "
        f"per sample ({budget.achieved_val / budget.gflops - 1:+.2%}) on {count(budget.samples, 'validation sample')}. "
        "Other samples may cost a little more or less."
    )
    for point in report.budgets:
        low, high = point.interval95.low, point.interval95.high
        yield (
            f"Budget {point.requested:.3f}, set without another training: {point.gflops:.4g} GFLOPs "
            f"({point.share:.3f}x on these samples), {report.quality.metric} {point.pruned:.2f} "
            f"({point.change:+.2f}, {low:+.2f} to {high:+.2f})."
        )
    yield from _shared.generation_lines(report.generation)
    yield from _shared.index_lines(report.index)
    for tower, layers in report.tokens.items():
        yield f"Mean tokens through the {wording.tower_name(tower)} tower: {_token_counts(layers)}"
    if report.allocation:
        yield wording.allocation(report.allocation)
    yield from _shared.note_lines(report.notes)
    yield f"GFLOPs are {report.gflops.convention}."
    weights = report.weights
    yield (
        f"Token pruning saves compute, not bytes: the folder holds all weights, {weights.bytes / 1e6:,.2f} MB in "
        f"{weights.dtype}."
    )
    yield f'Load it: madtp_cli.load("{report.output}")'


def _token_counts(layers: Sequence[LayerPart]) -> str:
    """Write the mean tokens before the first block and after each block: `145.0 > 40.2 > 22.1`."""
    return " > ".join([f"{layers[0].tokens_in:.1f}", *(f"{layer.tokens_out:.1f}" for layer in layers)])
