"""The result of `madtp profile`: cost and token counts by layer, and times by batch size."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from madtp_cli.cli.formatting import count
from madtp_cli.cli.results import _shared, times
from madtp_cli.reporting import wording
from madtp_cli.reporting.schema import LayerPart, ProfileReport


def show(report: ProfileReport, out: Console) -> None:
    """Print the table of layers, the fvcore check, and the table of times if there is one."""
    out.print(_table(report))
    counts = report.gflops
    out.print(_shared.gflops_line(counts, precision=6))
    if counts.fvcore is not None:
        out.print(
            f"Check on {count(counts.fvcore_samples, 'sample')}: fvcore counts {counts.fvcore:.6g}, "
            f"the formula {counts.formula:.6g} GFLOPs per sample."
        )
    for text in (*_shared.budget_lines(report.set_budget), *_shared.generation_lines(report.generation)):
        out.print(text)
    if report.latency:
        times.show(report.latency, out)
    out.print(f"Parameters: {report.parameters:,}")
    for text in _shared.note_lines(report.notes):
        out.print(text)


def _table(report: ProfileReport) -> Table:
    title = f"{report.checkpoint}: {count(report.samples, 'sample')} of {report.data}"
    table = _shared.table(title, "tower and layer", "tokens in", "tokens out", "5-95 %", "GFLOPs", "share")
    total = sum(report.towers.values())
    for layer in report.layers:
        table.add_row(*_layer_row(layer, total))
    for tower, gflops in report.towers.items():
        table.add_row(
            f"{wording.tower_name(tower)}, total", "", "", "", f"{gflops:.4g}", f"{gflops / total:.1%}", style="bold"
        )
    return table


def _layer_row(layer: LayerPart, total: float) -> tuple[str, ...]:
    """Write a layer's name, token counts (mean, and 5th to 95th percentile of those that leave it) and cost."""
    return (
        wording.layer_name(layer),
        "" if layer.tokens_in is None else f"{layer.tokens_in:.1f}",
        "" if layer.tokens_out is None else f"{layer.tokens_out:.1f}",
        "" if layer.tokens_out_p5 is None else f"{layer.tokens_out_p5:.0f}-{layer.tokens_out_p95:.0f}",
        f"{layer.gflops:.4g}",
        f"{layer.gflops / total:.1%}",
    )
