"""The texts and tables of bench.md."""

from __future__ import annotations

from collections.abc import Sequence

from examples.bench.timings import Case, Timing, time_ratio
from examples.bench.token_plans import TokenStatistics

#: Share of the tokens saved against padding that must become saved time.
PADDING_TARGET = 0.9

EXPLANATION = """
The weights are random, so this page shows time and memory and says nothing about quality. The images are built-in
scenes. An image keeps as many tokens before the first block and in each block as an image of the trained `blip.pt` at
the same budget, because random weights do not choose tokens like trained ones. Which tokens it keeps is decided by the
real importance score, and the time of that score is included.

All variants of a row ran in turns in one process. Times are medians, in milliseconds per sample. Ratios are medians of
the ratios of single turns, because a busy machine slows down all variants of a turn alike. Each turn uses the token
counts of other images: real data does not repeat, and in bfloat16 oneDNN compiles code for each new tensor shape.

* **dense**: our dense model on packed tokens. Attention uses `scaled_dot_product_attention` or two matrix products,
  whichever is faster. It is the fastest dense execution that we know.
* **stock**: the execution of transformers. It has no BLIP for NLVR2, so there it is its BLIP image tower (eager
  attention) with our text side.
* **fewer FLOPs**: multiply-adds of dense divided by multiply-adds of pruned.
* **faster**: time of dense divided by time of pruned.
* **realised efficiency**: faster divided by fewer FLOPs. It is 1 if all saved FLOPs become saved time.
* **vs stock**: time of stock divided by time of pruned.
* **vs padded**: time of padded execution divided by time of pruned. Padded execution gives every image of the batch as
  many tokens in each block as the image with the most tokens; the cost of masks is not included.
* **targets**: 0.9 times the tokens of padded execution divided by the tokens of packed execution. The first target
  counts the tokens that are executed: those that enter a block (attention) and those that leave it (feed-forward). The
  second target counts only the tokens that leave a block. It leaves out the attention of the first block, where the
  images differ least, so it is higher than what can be reached.
* **equal counts**: the realised efficiency if every image kept the mean number of tokens.
* **peak memory**: what torch has allocated at the peak of a forward pass, pruned of dense. Where it does not fall with
  the budget, the peak comes before the first tokens are pruned.
""".strip()
HEAD = (
    "| device | dtype | batch | budget | dense ms | stock ms | pruned ms | fewer FLOPs | faster | realised efficiency "
    "| vs stock | vs padded (targets) | equal counts | peak memory |\n" + "|---" * 14 + "|"
)
#: Column title and field of each quantity that grows, by the name in `Case.growing`.
GROWING = {
    "batch": ("samples", "samples"),
    "image": ("image size", "image_size"),
    "text": ("text tokens", "text_tokens"),
}


def optional(value: float | None, form: str) -> str:
    """Format a number, or return an empty cell for None."""
    return "" if value is None else format(value, form)


def case_rows(case: Case) -> list[str]:
    """Return one row of the table for each budget; times are per sample."""
    return [f"| {' | '.join(_cells(case, pruned))} |" for pruned in case.pruned]


def _cells(case: Case, pruned: Timing) -> list[str]:
    stock, padded, uniform = case.find("stock"), *(case.find(name, pruned.budget) for name in ("padded", "uniform"))
    return [
        case.device,
        case.dtype,
        f"{case.samples}",
        f"{pruned.budget:g}",
        optional(case.milliseconds(case.dense), ",.0f"),
        optional(case.milliseconds(stock), ",.0f"),
        optional(case.milliseconds(pruned), ",.0f"),
        f"{case.flops_ratio(pruned):.2f}x",
        f"{case.speedup(pruned):.2f}x",
        f"**{case.efficiency(pruned):.2f}**",
        "" if stock is None else f"{time_ratio(stock.seconds, pruned.seconds):.2f}x",
        _against_padding(case, pruned, padded),
        "" if uniform is None else f"{case.efficiency(uniform):.2f}",
        _memory(case.dense, pruned),
    ]


def _against_padding(case: Case, pruned: Timing, padded: Timing | None) -> str:
    if padded is None:
        return ""
    targets = (f"{PADDING_TARGET * ratio:.2f}x" for ratio in case.padding_ratios[f"{pruned.budget:g}"])
    return f"{time_ratio(padded.seconds, pruned.seconds):.2f}x ({'; '.join(targets)})"


def _memory(dense: Timing, pruned: Timing) -> str:
    if dense.peak_mb is None or pruned.peak_mb is None:
        return ""
    return f"{pruned.peak_mb:,.0f} of {dense.peak_mb:,.0f} MB"


def empty_rows(device: str, dtype: str, samples: int, budgets: Sequence[float]) -> list[str]:
    """Return rows without figures for a device that was not available."""
    return [f"| {device} | {dtype} | {samples} | {budget:g} |" + " |" * 10 for budget in budgets]


def statistics_rows(by_budget: dict[str, TokenStatistics]) -> list[str]:
    """Return the table of the tokens per image before the first block and after each block."""
    lines = ["| block | " + " | ".join(f"budget {budget}" for budget in by_budget) + " |"]
    lines.append("|---" * (1 + len(by_budget)) + "|")
    for stage, budgets in enumerate(zip(*by_budget.values(), strict=True)):
        cells = [f"{mean:.0f} ± {sd:.0f} ({least:.0f} to {most:.0f})" for mean, least, most, sd in budgets]
        lines.append(f"| {stage or 'before block 1'} | {' | '.join(cells)} |")
    return lines


def number_of_runs(cases: Sequence[Case]) -> str:
    """Return a sentence with the number of timed runs of each case."""
    runs = (f"{len(case.dense.seconds)} ({case.dtype}, batch {case.samples})" for case in cases)
    return f"Timed runs of each variant: {', '.join(runs)}."


def architecture_section(
    cases: Sequence[Case], rule_statistics: dict[str, TokenStatistics], rule_samples: int, missing: Sequence[str]
) -> list[str]:
    """Return the lines about one architecture.

    Args:
        cases: Its cases, all at the same image size.
        rule_statistics: By budget, token statistics if the pruning rule itself decides; may be empty.
        rule_samples: Samples of these statistics.
        missing: Rows for devices that were not available, from `empty_rows`.
    """
    first, last = cases[0], cases[-1]
    lines = ["", f"## {first.architecture}, {first.image_size} pixels", "", HEAD]
    lines += [row for case in cases for row in case_rows(case)]
    if missing:
        lines += [*missing, "", "No GPU was available, so its cells are empty."]
    lines += ["", number_of_runs(cases)]
    title = f"Tokens per image before the first block and after each block, over all timed batches of {last.samples}:"
    lines += ["", f"{title} mean ± standard deviation (minimum to maximum).", "", *statistics_rows(last.statistics)]
    if rule_statistics:
        title = "The same if the pruning rule itself decides, with the threshold scale that meets the budget"
        lines += ["", f"{title}, batch of {rule_samples}:", "", *statistics_rows(rule_statistics)]
    return lines


def growth_section(cases: Sequence[Case]) -> list[str]:
    """Return the lines with time and memory per batch while one quantity grows."""
    runs = min(len(case.dense.seconds) for case in cases)
    note = (
        f"BLIP-base for NLVR2, float32, per batch, median of {runs} runs. The first table varies the number of samples"
    )
    lines = ["", "## How cost grows", "", f"{note}; the other tables have one sample per batch."]
    for growing, (title, name) in GROWING.items():
        rows = sorted((case for case in cases if case.growing == growing), key=lambda case: int(getattr(case, name)))
        if rows:
            lines += ["", *_growth_table(rows, title, name)]
    return lines


def _growth_table(cases: Sequence[Case], title: str, name: str) -> list[str]:
    budgets = [timing.budget for timing in cases[0].pruned]
    columns = "".join(f" budget {budget:g}: ms | MB | efficiency |" for budget in budgets)
    lines = [f"| {title} | dense ms | dense MB |{columns}", "|---" * (3 + 3 * len(budgets)) + "|"]
    for case in cases:
        cells = [f"{getattr(case, name)}", f"{1000 * case.dense.median:,.0f}", optional(case.dense.peak_mb, ",.0f")]
        for pruned in case.pruned:
            cells += [f"{1000 * pruned.median:,.0f}", optional(pruned.peak_mb, ",.0f")]
            cells.append(f"{case.efficiency(pruned):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines
