"""The plots of `madtp report`, drawn with matplotlib.

A page holds each plot as SVG, for light and for dark screens. matplotlib is used and not own SVG, because axes, ticks,
error bars and histograms are its business, and `madtp compare` and the benchmarks draw with it too.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from madtp_cli.reporting import wording
from madtp_cli.reporting.plotting import figure, require_matplotlib
from madtp_cli.reporting.samples import SampleRecord
from madtp_cli.reporting.schema import CompressReport, LayerPart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Size of a plot in inches: its text stays readable at a width of 330 pixels.
SIZE = (4.6, 3.1)
#: Text, background and grid on light and on dark screens, as in `html/style.css`.
LIGHT, DARK = ("#1b1f24", "#ffffff", "#d0d7de"), ("#e6edf3", "#0d1117", "#3d444d")
#: Colours of the folders, which differ enough on both backgrounds.
COLOURS = ("#3b7dd8", "#d9822b", "#2ca089", "#c7539b", "#8d6cc9", "#9c9a2e")
#: Neutral colour of the dense model on both backgrounds.
DENSE = "#8b949e"
#: Marks of the folders, for readers who do not see colours.
MARKERS = "os^Dvp"


@dataclass(frozen=True)
class Run:
    """A folder that `madtp compress` wrote.

    Attributes:
        name: Name of the folder.
        report: Its report.
        records: The records of its samples; empty if they are not there.
    """

    name: str
    report: CompressReport
    records: Sequence[SampleRecord] = ()


@dataclass(frozen=True)
class Plot:
    """A plot in a page.

    Attributes:
        title: Its heading.
        description: What it shows, with its figures, for readers who do not see it.
        light, dark: The picture as a data URI.
    """

    title: str
    description: str
    light: str
    dark: str


def all_plots(runs: Sequence[Run]) -> list[Plot]:
    """Return every plot for which the runs have data.

    Raises:
        UsageError: matplotlib is not installed.
    """
    require_matplotlib()
    plots = [
        _plot(f"Quality against {name}", _quality_text(runs, unit), lambda axis, u=unit: _draw_quality(axis, runs, u))
        for name, unit in (("GFLOPs", "GFLOPs"), ("time", "ms"))
    ]
    if any(run.report.curve for run in runs):
        plots.append(_plot("Cost against threshold scale", _curve_text(runs), lambda axis: _draw_curve(axis, runs)))
    for tower in dict.fromkeys(tower for run in runs for tower in run.report.tokens):
        if any(_prunes(run.report.tokens.get(tower, [])) for run in runs):
            title = f"Tokens of the {wording.tower_name(tower)} tower"
            plots.append(_plot(title, _tokens_text(runs, tower), lambda axis, t=tower: _draw_tokens(axis, runs, t)))
    if any(run.records for run in runs):
        plots.append(_plot("GFLOPs of the samples", _costs_text(runs), lambda axis: _draw_costs(axis, runs)))
    if any(run.report.training for run in runs):
        plots.append(_plot("Loss of the fine-tune", _loss_text(runs), lambda axis: _draw_loss(axis, runs)))
        plots.append(_plot("Cost during the fine-tune", _budget_text(runs), lambda axis: _draw_budget(axis, runs)))
    return plots


def _plot(title: str, description: str, draw: Callable[..., None]) -> Plot:
    return Plot(title, description, *(_svg(draw, theme) for theme in (LIGHT, DARK)))


def _svg(draw: Callable[[Axes], None], theme: tuple[str, str, str]) -> str:
    """Draw a plot in some colours, as a data URI."""
    import matplotlib

    ink, paper, line = theme
    colours = {"text.color": ink, "axes.labelcolor": ink, "xtick.color": ink, "ytick.color": ink}
    colours |= {"axes.edgecolor": line, "grid.color": line, "figure.facecolor": paper, "axes.facecolor": paper}
    # Letters are drawn as paths, so that a page looks the same with any fonts.
    others = {"svg.fonttype": "path", "svg.hashsalt": "madtp", "font.size": 9, "legend.frameon": False}
    settings: Any = colours | others | {"legend.fontsize": 8, "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings):
        drawn = figure(*SIZE)
        axis = drawn.subplots()
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.6, linewidth=0.6)
        axis.set_axisbelow(True)
        draw(axis)
        stream = io.BytesIO()
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


def _style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}


def _label(name: str) -> str:
    """Return a name for a legend, shortened; a dollar sign would begin a formula, an underscore would hide it."""
    return name.replace("$", r"\$").lstrip("_")[:28] or "run"


def _costs_of(report: CompressReport, unit: str) -> tuple[float, float]:
    """Return what the dense and the pruned model cost per sample."""
    if unit == "GFLOPs":
        return report.gflops.dense, float(report.gflops.pruned or 0)
    return report.latency.dense_ms, float(report.latency.pruned_ms or 0)


def _comparable(report: CompressReport, unit: str) -> str:
    """Return what reports whose points are joined have in common; for times also how they were measured."""
    timed = report.latency.model_dump(include={"device", "processor", "dtype", "threads", "batch_size"})
    return f"{report.checkpoint} {report.method} {timed if unit == 'ms' else ''}"


def _other_budgets(report: CompressReport, unit: str) -> list[tuple[float, float]]:
    """Return cost and quality at the other budgets of a range."""
    return [(point.gflops if unit == "GFLOPs" else point.pruned_ms, point.pruned) for point in report.budgets]


def _draw_quality(axis: Axes, runs: Sequence[Run], unit: str) -> None:
    """Draw each pruned model with its interval, and the dense models that they come from."""
    points: dict[str, list[tuple[float, float]]] = {}
    for number, run in enumerate(runs):
        report, quality = run.report, run.report.quality
        dense, pruned = _costs_of(report, unit)
        axis.plot(dense, quality.dense, color=DENSE, marker="X", linestyle="", label="dense" if not number else None)
        interval = quality.pruned_interval95
        errors = None
        if interval is not None:
            errors = [[max(0.0, quality.pruned - interval.low)], [max(0.0, interval.high - quality.pruned)]]
        axis.errorbar(pruned, quality.pruned, errors, capsize=3, linestyle="", label=_label(run.name), **_style(number))
        path = points.setdefault(_comparable(report, unit), [(dense, quality.dense)])
        path.append((pruned, quality.pruned))
        for point in _other_budgets(report, unit):
            axis.plot(*point, linestyle="", markersize=4, **_style(number))
            path.append(point)
    for path in points.values():  # models of one checkpoint and method
        axis.plot(*zip(*sorted(path), strict=True), color=DENSE, linewidth=0.8, linestyle=":", zorder=1)
    axis.set(xlabel=f"{unit} per sample", ylabel=f"{runs[0].report.quality.metric}")
    axis.set_xlim(left=0)
    axis.legend()


def _draw_curve(axis: Axes, runs: Sequence[Run]) -> None:
    for number, run in enumerate(runs):
        points = sorted((point.threshold_scale, 100 * point.share) for point in run.report.curve)
        if not points:
            continue
        axis.plot(*zip(*points, strict=True), label=_label(run.name), markersize=4, linewidth=1, **_style(number))
        axis.plot(run.report.threshold_scale, 100 * run.report.budget.achieved_share, color=DENSE, marker="*", ms=11)
    axis.set(xlabel="threshold scale (star: chosen)", ylabel="% of the dense GFLOPs")
    axis.legend()


def _prunes(layers: Sequence[LayerPart]) -> bool:
    return any(layer.tokens_out != layers[0].tokens_in for layer in layers)


def _draw_tokens(axis: Axes, runs: Sequence[Run], tower: str) -> None:
    for number, run in enumerate(runs):
        layers = run.report.tokens.get(tower, [])
        if not layers:
            continue
        first, places = float(layers[0].tokens_in or 0), range(len(layers) + 1)
        mean, low, high = (
            [first, *(float(getattr(layer, name) or 0) for layer in layers)]
            for name in ("tokens_out", "tokens_out_p5", "tokens_out_p95")
        )
        axis.fill_between(places, low, high, alpha=0.22, color=_style(number)["color"], linewidth=0)
        axis.plot(places, mean, label=_label(run.name), markersize=4, **_style(number))
    axis.set(xlabel="after block (0: before the first)", ylabel="tokens (band: 5-95 %)")
    axis.locator_params(axis="x", integer=True)
    axis.set_ylim(bottom=0)
    axis.legend()


def _draw_costs(axis: Axes, runs: Sequence[Run]) -> None:
    for number, run in enumerate(runs):
        gflops = [float(record.gflops.pruned or 0) for record in run.records]
        if gflops:
            axis.hist(gflops, bins=30, alpha=0.75, color=_style(number)["color"], label=_label(run.name))
            axis.axvline(run.report.gflops.dense, color=DENSE, linestyle="--", label=None if number else "dense, mean")
    axis.set(xlabel="GFLOPs of a sample", ylabel="samples")
    axis.locator_params(axis="y", integer=True)
    axis.set_xlim(left=0)
    axis.legend()


def _draw_loss(axis: Axes, runs: Sequence[Run]) -> None:
    for number, run in enumerate(runs):
        points = run.report.training
        if points:
            steps, colour = [point.step for point in points], _style(number)["color"]
            axis.plot(steps, [point.loss for point in points], label=_label(run.name), color=colour, linewidth=1)
    axis.set(xlabel="step", ylabel="loss")
    axis.locator_params(axis="x", integer=True)
    axis.legend()


def _draw_budget(axis: Axes, runs: Sequence[Run]) -> None:
    for number, run in enumerate(runs):
        points, colour = run.report.training, _style(number)["color"]
        if points:
            gflops = [point.gflops for point in points]
            axis.plot([point.step for point in points], gflops, label=_label(run.name), color=colour, linewidth=1)
            axis.axhline(run.report.budget.gflops, color=colour, linestyle="--", linewidth=0.8)
    axis.set(xlabel="step", ylabel="GFLOPs of the batch (dashed: budget)")
    axis.locator_params(axis="x", integer=True)
    axis.legend()


def _quality_text(runs: Sequence[Run], unit: str) -> str:
    parts = []
    for run in runs:
        dense, pruned = _costs_of(run.report, unit)
        quality = run.report.quality
        parts.append(
            f"{run.name}: {quality.metric} {quality.dense:.2f} at {dense:.4g} {unit} per sample dense, "
            f"{quality.pruned:.2f} at {pruned:.4g} {unit} pruned"
            + "".join(f", {value:.2f} at {cost:.4g}" for cost, value in _other_budgets(run.report, unit))
        )
    bars = any(run.report.quality.pruned_interval95 for run in runs)
    text = "; ".join(parts) + (". The bar is the 95 % interval of the pruned model." if bars else ".")
    if len({_comparable(run.report, unit) for run in runs}) > len({_comparable(run.report, "GFLOPs") for run in runs}):
        text += " Times that were measured on different processors, devices or threads are not joined by a line."
    return text


def _curve_text(runs: Sequence[Run]) -> str:
    parts = [
        f"{run.name}: {len(run.report.curve)} trials of the calibration; threshold scale "
        f"{run.report.threshold_scale:.4g} costs {run.report.budget.achieved_share:.1%} of the dense GFLOPs"
        for run in runs
    ]
    return "; ".join(parts) + "."


def _tokens_text(runs: Sequence[Run], tower: str) -> str:
    parts = []
    for run in runs:
        layers = run.report.tokens.get(tower, [])
        if layers:
            counts = [layers[0].tokens_in, *(layer.tokens_out for layer in layers)]
            parts.append(f"{run.name}: {' to '.join(f'{count:.1f}' for count in counts if count is not None)} tokens")
    return (
        "; ".join(parts)
        + ", the mean before the first block and after each block. The band is the 5th to 95th percentile."
    )


def _costs_text(runs: Sequence[Run]) -> str:
    parts = []
    for run in runs:
        gflops = sorted(float(record.gflops.pruned or 0) for record in run.records)
        if gflops:
            middle = gflops[len(gflops) // 2]
            parts.append(f"{run.name}: {gflops[0]:.4g} to {gflops[-1]:.4g}, median {middle:.4g} GFLOPs")
    return f"Histogram over the samples. {'; '.join(parts)}."


def _loss_text(runs: Sequence[Run]) -> str:
    parts = [
        f"{run.name}: from {run.report.training[0].loss:.3g} to {run.report.training[-1].loss:.3g}"
        for run in runs
        if run.report.training
    ]
    return f"Loss by step. {'; '.join(parts)}."


def _budget_text(runs: Sequence[Run]) -> str:
    parts = [
        f"{run.name}: last {run.report.training[-1].gflops:.4g}, budget {run.report.budget.gflops:.4g}"
        for run in runs
        if run.report.training
    ]
    return f"GFLOPs per sample of the training batches by step. {'; '.join(parts)}."
