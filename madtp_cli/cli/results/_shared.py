"""Lines and tables that several reports share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from madtp_cli.errors import printable
from madtp_cli.reporting.run_parts import SetBudgetPart
from madtp_cli.reporting.schema import GenerationCostPart, GflopsPart, IndexPart, Interval


def table(title: str, *columns: str, header: bool = True) -> Table:
    """Make an empty table: text in the first column, numbers to the right in the others."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD if header else box.SIMPLE, show_header=header)
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    return made


def gflops_line(part: GflopsPart, precision: int = 4) -> str:
    """State the cost per sample, and how it is counted."""
    pruned = "" if part.pruned is None else f", pruned {part.pruned:.{precision}g} ({part.share:.3f}x)"
    return f"GFLOPs per sample: dense {part.dense:.{precision}g}{pruned}.\nGFLOPs are {part.convention}."


def budget_lines(part: SetBudgetPart | None) -> Iterator[str]:
    """State the budget that was set without training, if there is one."""
    if part is not None:
        yield (
            f"Budget {part.requested} was set without training: threshold scale {part.threshold_scale:.4g}. "
            "It is met on the samples of the calibration; others may cost a little more or less."
        )


def generation_lines(part: GenerationCostPart | None) -> Iterator[str]:
    """State the generation cost, if there is any."""
    if part is not None:
        pruned = "" if part.pruned is None else f", pruned {part.pruned:.4g} ({part.share:.3f}x)"
        yield f"Generation cost in GFLOPs per answer, not part of the budget: dense {part.dense:.4g}{pruned}."
        yield f"It covers {part.description}."


def index_lines(part: IndexPart | None) -> Iterator[str]:
    """State the index compatibility of an image encoder."""
    if part is None:
        return
    low, high = part.cosine_interval95.low, part.cosine_interval95.high
    yield (
        f"Cosine to the dense embedding: mean {part.cosine:.5f} (95 % interval {low:.5f} to {high:.5f}), "
        f"5th percentile {part.cosine_p5:.5f}."
    )
    yield f"Search results equal to those of dense queries in the dense index, {part.images:,} images:"
    for words, overlap in (
        ("pruned queries, dense index (no re-indexing)", part.pruned_in_dense),
        ("dense queries, pruned index", part.dense_in_pruned),
        ("pruned queries, pruned index", part.pruned_in_pruned),
    ):
        yield (
            f"  {words}: top 1 {_percent(overlap.top1, overlap.top1_interval95)}, "
            f"top {part.results} {_percent(overlap.top10, overlap.top10_interval95)}"
        )


def _percent(value: float, interval: Interval) -> str:
    return f"{value:.1f} % ({interval.low:.1f} to {interval.high:.1f})"


def note_lines(notes: Sequence[str]) -> Iterator[str]:
    """Mark each note as one."""
    yield from (f"Note: {printable(note)}" for note in notes)
