"""The tables of results.md that compare the pruning methods at equal GFLOPs. They are made of `madtp compare`."""

from __future__ import annotations

from collections.abc import Mapping

from examples import page_tables
from madtp_cli.reporting.comparison import CONTROL, DENSE, CompareReport, ComparisonRow

INTRODUCTION = """
## Methods at equal GFLOPs

Every method goes through the same budget search, cost formula and, where there is one, fine-tuning with the same data
and seed (`madtp compare`). The figures are from the test samples of the rows below. In brackets is the change against
the dense model with the half width of the 95 % interval of the paired difference, in points (CIDEr: percent). **Bold**
is the best method, and `madtp` if the interval of its difference to the best includes zero; if `madtp` is the best,
also those whose interval includes zero. An asterisk marks a method whose cost on test samples differs from the budget
by more than 1 %; the budget is met on validation samples. A method that prunes only inside blocks, or at most halves
the tokens of a block, cannot reach every budget of these shallow models. "control" is the dense model after the same
fine-tuning. Where it is better than the dense model, these steps also taught the task, and a method should be compared
with the control."""
#: First cell of the head of a table, and the cell of a method that a comparison does not have.
FIRST, NOT_MEASURED = "method", "not measured"
#: Titles of the rows in the head of a table.
HEADS = {
    "nlvr2": "NLVR2 task, BLIP",
    "vqa": "VQA task, BLIP",
    "caption": "captions, BLIP",
    "retrieval": "retrieval, BLIP, five captions",
    "retrieval-1": "retrieval, BLIP, one long caption",
    "clip": "retrieval, CLIP, five captions",
    "clip-1": "retrieval, CLIP, one long caption",
    "siglip": "retrieval, SigLIP, five captions",
}


#: Cells of a comparison at one budget by method; the key "method" has the head of the column.
Column = dict[str, str]


def heading(budget: str, steps: int) -> str:
    """Return the heading of the table of a budget."""
    training = f"after {steps} fine-tuning steps" if steps else "without fine-tuning"
    return f"### {float(budget):.0%} of the GFLOPs, {training}".replace("%", " %")


def on_page(page: str, budget: str, steps: int) -> dict[str, Column]:
    """Return the columns of the table of a budget on the page, by the name of the row; empty if there is none."""
    lines = page_tables.table(page, heading(budget, steps))
    names = {head: name for name, head in HEADS.items()}
    columns = [
        dict(zip((line[0] for line in lines), column, strict=True)) for column in list(zip(*lines, strict=True))[1:]
    ]
    return {names[column[FIRST].partition(":")[0]]: column for column in columns}


def tables(columns: Mapping[str, Mapping[str, Column]], steps: int) -> list[str]:
    """Return a table for each budget, as lines.

    Args:
        columns: The columns of each budget by the name of the row.
        steps: Fine-tuning steps of the comparisons.
    """
    lines = []
    for budget, at_budget in columns.items():
        if at_budget:
            lines += ["", heading(budget, steps), "", *table(at_budget)]
    return lines


def table(columns: Mapping[str, Column]) -> list[str]:
    """Return the table of a budget: a line for each method and a column for each comparison."""
    ordered = [columns[name] for name in HEADS if name in columns]
    labels = list(dict.fromkeys(label for column in ordered for label in column))
    lines = [[label, *(column.get(label, NOT_MEASURED) for column in ordered)] for label in labels]
    head, *rest = [f"| {' | '.join(line)} |" for line in lines]
    return [head, "|---" * (len(ordered) + 1) + "|", *rest]


def column(name: str, report: CompareReport, budget: str) -> Column:
    """Return the column of a comparison at a budget.

    Args:
        name: Name of the row.
        report: The comparison.
        budget: The budget.
    """
    rows = _by_method(report, budget)
    cells_of = {
        label if label in (DENSE, CONTROL) else f"`{label}`": cell(row, best(rows)) for label, row in rows.items()
    }
    return {FIRST: f"{HEADS[name]}: {report.metric}, {report.samples:,} samples", **cells_of}


def _by_method(report: CompareReport, budget: str) -> dict[str, ComparisonRow]:
    """Return the rows of a report at a budget, those without a budget first."""
    return {row.method: row for row in report.rows if row.budget in (None, budget)}


def best(rows: Mapping[str, ComparisonRow]) -> set[str]:
    """Return the best method and those that tie with it.

    The intervals are of differences to `madtp`, so only ties of `madtp` with another method are known.
    """
    known = {name: row.quality for name, row in rows.items() if row.budget is not None and row.quality is not None}
    if not known:
        return set()
    winner = max(known, key=lambda name: known[name])
    ends = {name: part.interval95 for name in known if (part := rows[name].to_madtp) is not None}
    if winner == "madtp":
        return {winner, *(name for name, end in ends.items() if end.high >= 0)}
    return {winner, "madtp"} if winner in ends and ends[winner].low <= 0 else {winner}


def cell(row: ComparisonRow, winners: set[str]) -> str:
    """Return the cell of a method."""
    if row.quality is None:
        return "not reachable"
    text = f"{row.quality:.2f}"
    text = f"**{text}**" if row.method in winners and row.budget is not None else text
    if row.to_dense is not None:
        ends = row.to_dense.interval95
        text += f" ({row.to_dense.change:+.2f} ± {(ends.high - ends.low) / 2:.2f})"
    return text if row.within_budget is not False else f"{text} *"
