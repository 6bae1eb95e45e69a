"""What a bench measured, its arithmetic, and how it is shown: a table and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: By budget each block's tokens per image: mean, least, most, standard deviation.
Spread = dict[str, list[tuple[float, ...]]]
PLOT_NEEDS = "The plot needs matplotlib.\nInstall it with: pip install 'madtp[bench]'"
#: Of what padding to the batch's maximum executes more, so much must be saved time.
AGAINST_PADDING = 0.9


@dataclass(frozen=True)
class Timed:
    """A variant of a batch: its runs in seconds, GFLOPs per sample, and peak memory in MB where it was taken."""

    name: str
    budget: float
    seconds: list[float]
    gflops: float
    peak_mb: float | None = None

    @property
    def median(self) -> float:
        """Seconds per batch."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Case:
    """One batch of one model in one number format, all variants timed in turns.

    `over_mean` has by budget the tokens of padding to the batch's maximum over those that are there, see `counts`;
    `grows` names what was changed where the case shows how cost grows.
    """

    architecture: str
    device: str
    dtype: str
    threads: int
    samples: int
    image_size: int
    text_tokens: int
    timed: list[Timed]
    spread: Spread = field(default_factory=dict)
    over_mean: dict[str, tuple[float, float]] = field(default_factory=dict)
    grows: str = ""

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Case:
        """From `fields`, as JSON has them."""
        return cls(**{**fields, "timed": [Timed(**one) for one in fields["timed"]]})

    def fields(self) -> dict[str, Any]:
        return asdict(self)

    def find(self, name: str, budget: float = 1.0) -> Timed | None:
        """A variant, if it was timed."""
        return next((one for one in self.timed if (one.name, one.budget) == (name, budget)), None)

    @property
    def dense(self) -> Timed:
        return next(one for one in self.timed if one.name == "dense")

    @property
    def budgets(self) -> list[float]:
        return [one.budget for one in self.timed if one.name == "pruned"]

    def fewer(self, one: Timed) -> float:
        """Dense FLOPs over its FLOPs."""
        return self.dense.gflops / one.gflops

    def faster(self, one: Timed) -> float:
        """Dense time over its time."""
        return times_faster(self.dense.seconds, one.seconds)

    def efficiency(self, one: Timed) -> float:
        """What share of the saved FLOPs became saved time: 1 where it is as many times faster as it has fewer FLOPs."""
        return self.faster(one) / self.fewer(one)

    def milliseconds(self, one: Timed | None) -> float | None:
        """Per sample."""
        return None if one is None else 1000 * one.median / self.samples


def times_faster(slow: Sequence[float], fast: Sequence[float]) -> float:
    """The median of the turns' ratios: a turn's runs keep the same counts, and a busy machine slows them alike.

    >>> times_faster([4.0, 2.0, 30.0], [2.0, 1.0, 10.0])
    2.0
    """
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def recorded(file: Path, make: Callable[[], Any]) -> Any:
    """What a JSON file holds; made and written now unless it is there."""
    if not file.exists():
        text = json.dumps(make(), indent=1) + "\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return json.loads(file.read_text("utf-8"))


def shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


EXPLAINED = """
Random weights: what is shown is time. Images are the built-in scenes; each keeps as many tokens as an image of the
trained `blip.pt` at the same budget does, block by block, chosen by the real score, whose time is included. All
variants of a line ran in turns in one process. Times are medians, in milliseconds per sample, and ratios are medians of
the turns' ratios, because a busy machine slows a whole turn. Each turn imposes the counts of other images of the
example: data does not repeat, and in bfloat16 oneDNN compiles each shape that is new to it.

* **dense**: the same model on packed tokens, with whichever of `scaled_dot_product_attention` and two matrix products
  is faster: the strongest dense execution we know here.
* **stock**: transformers' own execution; for NLVR2, which it lacks, its BLIP image tower (eager attention) with our
  text side.
* **padded**: every image carries as many tokens through every layer as the one with the most, which is what padding to
  the batch's maximum executes, without even its masks. In brackets what the counts promise: 0.9 times the tokens that
  padding executes over those that are there (of a block's attention those that enter it, of its feed-forward those
  that it leaves); behind it the same of the tokens that blocks leave alone, which forgets that neither spares the
  first block's attention anything, and so promises more than is executed.
* **without a spread**: the realised efficiency if every image kept the mean.
* **realised efficiency**: times faster over times fewer multiply-adds; 1 where every saved FLOP is saved time.
* **memory**: what torch holds at the peak of a forward. Where it does not fall with the budget, the peak comes before
  the first tokens go.
""".strip()
HEAD = (
    "| device | dtype | batch | budget | dense ms | stock ms | pruned ms | FLOPs fewer | faster | realised efficiency "
    "| than stock | than padded (wanted) | without a spread | memory |\n" + "|---" * 14 + "|"
)


def rows(case: Case) -> list[str]:
    """A line of the table for each budget; times are per sample."""
    lines, stock = [], case.find("stock")
    for budget in case.budgets:
        pruned, padded, even = (case.find(name, budget) for name in ("pruned", "padded", "even"))
        if pruned is None:
            continue
        cells = [
            case.device, case.dtype, f"{case.samples}", f"{budget:g}",
            shown(case.milliseconds(case.dense), ",.0f"), shown(case.milliseconds(stock), ",.0f"),
            shown(case.milliseconds(pruned), ",.0f"), f"{case.fewer(pruned):.2f}x", f"{case.faster(pruned):.2f}x",
            f"**{case.efficiency(pruned):.2f}**",
            "" if stock is None else f"{times_faster(stock.seconds, pruned.seconds):.2f}x",
            _against_padding(case, pruned, padded),
            "" if even is None else f"{case.efficiency(even):.2f}",
            _memory(case.dense, pruned),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _against_padding(case: Case, pruned: Timed, padded: Timed | None) -> str:
    if padded is None:
        return ""
    wanted = (f"{AGAINST_PADDING * over:.2f}x" for over in case.over_mean[f"{pruned.budget:g}"])
    return f"{times_faster(padded.seconds, pruned.seconds):.2f}x ({'; '.join(wanted)})"


def _memory(dense: Timed, pruned: Timed) -> str:
    if dense.peak_mb is None or pruned.peak_mb is None:
        return ""
    return f"{pruned.peak_mb:,.0f} of {dense.peak_mb:,.0f} MB"


def empty(device: str, dtype: str, samples: int, budgets: Sequence[float]) -> list[str]:
    """Lines of what could not be timed here."""
    return [f"| {device} | {dtype} | {samples} | {budget:g} |" + " |" * 10 for budget in budgets]


def spreads(by_budget: Spread) -> list[str]:
    """The tokens of an image that each block leaves, over the images of a batch, from `Case.spread`."""
    lines = ["| block | " + " | ".join(f"budget {budget}" for budget in by_budget) + " |"]
    lines.append("|---" * (1 + len(by_budget)) + "|")
    for block, cells in enumerate(zip(*by_budget.values(), strict=True)):
        told = [f"{mean:.0f} ± {sd:.0f} ({least:.0f} to {most:.0f})" for mean, least, most, sd in cells]
        lines.append(f"| {block} | {' | '.join(told)} |")
    return lines


def runs(cases: Sequence[Case]) -> str:
    """How many runs the medians of each case are of."""
    told = (f"{len(case.dense.seconds)} ({case.dtype}, batch {case.samples})" for case in cases)
    return f"Runs of each variant: {', '.join(told)}."


def growth(cases: Sequence[Case]) -> list[str]:
    """Time and memory per batch as one thing grows."""
    what = {"batch": "samples", "image": "image_size", "text": "text_tokens"}
    lines = []
    for grows, name in what.items():
        those = sorted((case for case in cases if case.grows == grows), key=lambda case: getattr(case, name))
        if not those:
            continue
        budgets = those[0].budgets
        lines += ["", f"| {name.replace('_', ' ')} | dense ms | dense MB |" +
                  "".join(f" at {budget:g} ms | MB | efficiency |" for budget in budgets)]  # fmt: skip
        lines.append("|---" * (3 + 3 * len(budgets)) + "|")
        for case in those:
            cells = [f"{getattr(case, name)}", f"{1000 * case.dense.median:,.0f}", shown(case.dense.peak_mb, ",.0f")]
            for pruned in (one for one in case.timed if one.name == "pruned"):
                cells += [f"{1000 * pruned.median:,.0f}", shown(pruned.peak_mb, ",.0f")]
                cells.append(f"{case.efficiency(pruned):.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def require_matplotlib() -> None:
    """End the script before its hours of timing, not after them."""
    try:
        import matplotlib  # noqa: F401  asked for, not used yet
    except ImportError:
        raise SystemExit(PLOT_NEEDS) from None


def plot(cases: Sequence[Case], file: Path) -> None:
    """Speed-up against FLOPs ratio, and the line on which every saved FLOP is saved time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(case.architecture for case in cases))
    figure, panels = pyplot.subplots(1, len(names), figsize=(6 * len(names), 5), squeeze=False, layout="constrained")
    for panel, name in zip(panels[0], names, strict=True):
        furthest = 1.0
        for case in (case for case in cases if case.architecture == name):
            pruned = [one for one in case.timed if one.name == "pruned"]
            across = [1.0, *sorted(case.fewer(one) for one in pruned)]
            up = [1.0, *(case.faster(one) for one in sorted(pruned, key=case.fewer))]
            style = "-" if case.dtype == "float32" else "--"
            panel.plot(across, up, style, marker="o", label=f"{case.device} {case.dtype}, batch {case.samples}")
            furthest = max(furthest, *across)
        panel.plot([1, furthest], [1, furthest], color="black", linewidth=0.8, label="every saved FLOP is saved time")
        panel.set(title=name, xlabel="times fewer multiply-adds than dense", ylabel="times faster than dense")
        panel.legend()
    figure.savefig(file, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
