"""The figure bench.png: speed-up against FLOPs ratio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from examples.bench.timings import Case
from madtp_cli.errors import install_command

MATPLOTLIB_MISSING = f"The figure needs matplotlib.\nInstall it with: {install_command('matplotlib')}"


def require_matplotlib() -> None:
    """End the script before hours of timing if the figure cannot be drawn at their end."""
    try:
        import matplotlib  # noqa: F401  only checked here
    except ImportError:
        raise SystemExit(MATPLOTLIB_MISSING) from None


def plot(cases: Sequence[Case], file: Path) -> None:
    """Draw a panel for each architecture, with the line on which all saved FLOPs become saved time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(case.architecture for case in cases))
    figure, panels = pyplot.subplots(1, len(names), figsize=(6 * len(names), 5), squeeze=False, layout="constrained")
    for panel, name in zip(panels[0], names, strict=True):
        largest = 1.0
        for case in (case for case in cases if case.architecture == name):
            pruned = sorted(case.pruned, key=case.flops_ratio)
            ratios = [1.0, *(case.flops_ratio(timing) for timing in pruned)]
            speedups = [1.0, *(case.speedup(timing) for timing in pruned)]
            style = "-" if case.dtype == "float32" else "--"
            label = f"{case.device} {case.dtype}, batch {case.samples}"
            panel.plot(ratios, speedups, style, marker="o", label=label)
            largest = max(largest, *ratios)
        panel.plot([1, largest], [1, largest], color="black", linewidth=0.8, label="every saved FLOP is saved time")
        panel.set(title=name, xlabel="times fewer multiply-adds than dense", ylabel="times faster than dense")
        panel.legend()
    figure.savefig(file, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
