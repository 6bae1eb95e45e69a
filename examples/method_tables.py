"""The tables of results.md that compare the pruning methods at equal GFLOPs. They are made of `madtp compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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


def tables(reports: Mapping[str, CompareReport], budgets: Sequence[str], steps: int) -> list[str]:
    """Return the tables of comparisons, one for each budget with those that have it, as lines.

    Args:
        reports: The comparison of each row, by the name of the row.
        budgets: The budgets.
        steps: Fine-tuning steps of the comparisons.
    """
    lines = []
    for budget in budgets:
        at_budget = {name: part for name, part in reports.items() if budget in {row.budget for row in part.rows}}
        training = f"after {steps} fine-tuning steps" if steps else "without fine-tuning"
        lines += ["", f"### {float(budget):.0%} of the GFLOPs, {training}".replace("%", " %"), ""]
        lines += table(at_budget, budget)
    return lines


def table(reports: Mapping[str, CompareReport], budget: str) -> list[str]:
    """Return the table of a budget: a line for each method and a column for each comparison."""
    by_row = {name: _by_method(report, budget) for name, report in reports.items()}
    methods = list(dict.fromkeys(method for rows in by_row.values() for method in rows))
    heads = [f"{HEADS[name]}: {report.metric}, {report.samples:,} samples" for name, report in reports.items()]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for method in methods:
        cells = [cell(rows.get(method), best(rows)) for rows in by_row.values()]
        lines.append(f"| {method if method in (DENSE, CONTROL) else f'`{method}`'} | {' | '.join(cells)} |")
    return lines


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


def cell(row: ComparisonRow | None, winners: set[str]) -> str:
    """Return the cell of a method."""
    if row is None:
        return "not measured"
    if row.quality is None:
        return "not reachable"
    text = f"{row.quality:.2f}"
    text = f"**{text}**" if row.method in winners and row.budget is not None else text
    if row.to_dense is not None:
        ends = row.to_dense.interval95
        text += f" ({row.to_dense.change:+.2f} ± {(ends.high - ends.low) / 2:.2f})"
    return text if row.within_budget is not False else f"{text} *"


def read(folder: Path) -> CompareReport | None:
    """Return the comparison in a folder; None if it has not ended."""
    file = folder / "comparison.json"
    return CompareReport.model_validate_json(file.read_text("utf-8")) if file.exists() else None
