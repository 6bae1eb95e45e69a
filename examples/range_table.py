"""The table of results.md about a checkpoint for a range of budgets, beside checkpoints made for one budget each."""

from __future__ import annotations

from madtp_cli.reporting.schema import CompressReport, EvalReport

#: The range, the budgets at which its checkpoint is measured, and those for which another checkpoint is made.
RANGE = "0.2..0.8"
BUDGETS = ("0.8", "0.7", "0.6", "0.5", "0.4", "0.3", "0.2")
ALONE = ("0.8", "0.6", "0.4", "0.2")
INTRODUCTION = """
## One checkpoint for many budgets

`examples/blip.pt` (NLVR2 task, built-in scenes), compressed with `--gflops-budget 0.2..0.8` and measured with
`madtp eval --gflops-budget`, without more training. "Alone" is a checkpoint that was compressed for this budget only.
All of them had the default number of steps. Accuracy in percent on 2,000 test samples, with the half width of its 95 %
interval; "share" is the share of the dense GFLOPs on test samples.

| budget | share | accuracy | share, alone | accuracy, alone | difference |
|---|---|---|---|---|---|"""


def line(budget: str, measured: EvalReport, alone: CompressReport | None) -> str:
    """Return the line of a budget.

    Args:
        budget: The budget.
        measured: The checkpoint for the range, measured at the budget.
        alone: The checkpoint for this budget only; None if there is none.
    """
    value, ends = measured.quality.value, measured.quality.interval95
    accuracy = f"{value:.2f} ± {(ends.high - ends.low) / 2:.2f}" if value is not None and ends else "none"
    cells = [budget, f"{measured.gflops.share:.3f}", accuracy, "", "", ""]
    if alone is not None and value is not None:
        pruned = alone.quality.pruned
        cells[3:] = [f"{alone.gflops.share:.3f}", f"{pruned:.2f}", f"{value - pruned:+.2f}"]
    return f"| {' | '.join(cells)} |"
