"""Compress published checkpoints on their own data, and print the results beside published figures.

    python -m examples.published --checkpoints DIR --data DIR [--rows nlvr2 vqa ...] [--folder build/published]

Nothing is downloaded; docs/published-checkpoints.md says how to get files. The folder of the checkpoints has one file
or folder per row, and the folder of the data one folder per data set; `--list` prints their names. A row whose files
are not there is named and left out. Each compressed checkpoint is one folder. One that exists is read and not made
again, so an interrupted run continues where it stopped. The table is also written to FOLDER/published.md.

A full run needs a GPU and many hours: try `--limit 200 --steps 0` first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import madtp_cli
from examples import running
from madtp_cli.errors import InputError, MadtpError
from madtp_cli.reporting.schema import CompressReport

BUDGETS = ("0.5", "0.3", "0.2")
#: The table. Published figures stand in the line of the budget that they are nearest to.
HEADER = """\
| row | budget | share of GFLOPs on the reported split | metric | dense | madtp | change | samples | published |
|---|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Figure:
    """A published result.

    Attributes:
        method: Method and, if it matters, whether it was trained.
        share: Remaining share of the GFLOPs as published. Publications count in different ways.
        values: The published values, in the order of the row's metrics.
        source: Where the value is from: "paper" if its authors print it, "CoMP" for values that the paper
            arXiv:2604.02956 prints of other methods.
    """

    method: str
    share: float
    values: tuple[float | None, ...]
    source: str

    def __str__(self) -> str:
        values = " / ".join("-" if value is None else f"{value:g}" for value in self.values)
        return f"{self.method} at {self.share:g}: {values} ({self.source})"


@dataclass(frozen=True)
class PublishedRow:
    """A published checkpoint with its data and figures.

    Attributes:
        title: Checkpoint and data set.
        checkpoint: Its file or folder in the folder of the checkpoints.
        data: Its folder in the folder of the data.
        metrics: Names of the values in the report: the metric of the task, or parts of it.
        dense: Published values of the dense model.
        figures: Published values of pruned models.
        settings: Settings of the run that the authors of the checkpoint use.
    """

    title: str
    checkpoint: str
    data: str
    metrics: tuple[str, ...]
    dense: tuple[float, ...]
    figures: tuple[Figure, ...]
    settings: dict[str, Any]


_RECALLS = ("TR@1", "IR@1")
ROWS = {
    "nlvr2": PublishedRow(
        "BLIP-base, NLVR2 test-P",
        "model_base_nlvr.pth",
        "nlvr2",
        ("accuracy",),
        (83.08,),
        (
            Figure("MADTP", 0.5, (82.85,), "derived from the differences in its paper"),
            Figure("MADTP", 0.3, (80.78,), "CoMP"),
            Figure("CoMP", 0.3, (81.37,), "paper"),
            Figure("MADTP", 0.2, (77.61,), "CoMP"),
            Figure("CoMP", 0.2, (79.62,), "paper"),
        ),
        {},
    ),
    "caption": PublishedRow(
        "BLIP-base, COCO captions, Karpathy test",
        "model_base_caption_capfilt_large.pth",
        "coco",
        ("CIDEr",),
        (),
        (Figure("MADTP", 0.3, (120.1,), "CoMP"), Figure("CoMP", 0.3, (126.8,), "paper")),
        {},
    ),
    "vqa": PublishedRow(
        "BLIP-base, VQAv2; published: test-dev, here: val, whose answers are public",
        "model_base_vqa_capfilt_large.pth",
        "vqav2",
        ("VQA accuracy",),
        (77.5,),
        (Figure("MADTP", 0.3, (76.3,), "CoMP"), Figure("CoMP", 0.3, (76.5,), "paper")),
        {"split": "val"},
    ),
    "retrieval-coco": PublishedRow(
        "BLIP-base, COCO retrieval, Karpathy test",
        "model_base_retrieval_coco.pth",
        "coco",
        _RECALLS,
        (81.8, 64.4),
        (
            Figure("ToMe, untrained", 0.45, (59.4, 48.1), "PiToMe's paper"),
            Figure("PiToMe, untrained", 0.45, (73.4, 57.7), "paper"),
            Figure("PiToMe, trained", 0.37, (79.0, 61.9), "paper"),
        ),
        {"k_test": 256},
    ),
    "retrieval-flickr": PublishedRow(
        "BLIP-base, Flickr30k retrieval, Karpathy test",
        "model_base_retrieval_flickr.pth",
        "flickr30k",
        _RECALLS,
        (96.8, 86.9),
        (
            Figure("PiToMe, trained", 0.37, (96.5, None), "paper"),
            Figure("MADTP", 0.3, (92.6, None), "CoMP"),
            Figure("CoMP", 0.3, (94.4, None), "paper"),
        ),
        {"k_test": 128},
    ),
    "clip-coco": PublishedRow(
        "CLIP ViT-L/14@336, COCO retrieval, Karpathy test",
        "ViT-L-14-336px.pt",
        "coco",
        _RECALLS,
        (71.5, 56.8),
        (Figure("MADTP", 0.25, (66.2, None), "CoMP"), Figure("CoMP", 0.25, (68.7, None), "paper")),
        {"task": "retrieval"},
    ),
}


def values(row: PublishedRow, report: CompressReport, model: str) -> str:
    """Return the values of the row's metrics for the "dense" or the "pruned" model."""
    quality = report.quality
    parts = [quality if name == quality.metric else quality.parts[name] for name in row.metrics]
    return " / ".join(f"{getattr(part, model):.2f}" for part in parts)


def nearest_budget(figure: Figure) -> str:
    """Return the budget of the table in whose line a published figure stands."""
    return min(BUDGETS, key=lambda budget: abs(float(budget) - figure.share))


def line(row: PublishedRow, budget: str, report: CompressReport) -> str:
    """Return the line of a report, with the published figures that are nearest to its budget."""
    quality = report.quality
    near = [str(figure) for figure in row.figures if budget == nearest_budget(figure)]
    if row.dense:
        near.insert(0, f"dense: {' / '.join(f'{value:g}' for value in row.dense)}")
    unit = "" if quality.unit == "points" else " %"
    change = f"{quality.change:+.2f}{unit} ({quality.interval95.low:+.2f} to {quality.interval95.high:+.2f})"
    cells = [row.title, budget, f"{report.gflops.share:.3f}", ", ".join(row.metrics), values(row, report, "dense")]
    cells += [values(row, report, "pruned"), change, f"{quality.samples:,}", "; ".join(near)]
    return f"| {' | '.join(cells)} |"


def compress(name: str, budget: str, options: argparse.Namespace) -> CompressReport:
    """Compress the checkpoint of a row, unless its output exists, and return the report."""
    row, output = ROWS[name], options.folder / f"{name}-{budget}"
    if (output / "report.json").exists():
        return CompressReport.model_validate_json((output / "report.json").read_text("utf-8"))
    given = {"steps": options.steps, "limit": options.limit, "device": options.device, "dtype": options.dtype}
    return madtp_cli.compress(
        options.checkpoints / row.checkpoint,
        progress=True,
        gflops_budget=budget,
        data=options.data / row.data,
        output=output,
        resume=True,
        **row.settings,
        **{setting: value for setting, value in given.items() if value is not None},
    )


def files(row: PublishedRow, options: argparse.Namespace) -> list[Path]:
    """Return the checkpoint and the data folder of a row."""
    return [options.checkpoints / row.checkpoint, options.data / row.data]


def missing(row: PublishedRow, options: argparse.Namespace) -> list[Path]:
    """Return the files of a row that are not there."""
    return [path for path in files(row, options) if not path.exists()]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=running.HelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder of the checkpoints")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="rows")
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS), help="shares of the GFLOPs")
    parser.add_argument("--steps", type=int, help="fine-tuning steps (default: that of madtp compress)")
    parser.add_argument("--limit", type=int, help="most samples per split")
    parser.add_argument("--device", help="device (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="number format (default: float32)")
    parser.add_argument("--folder", type=Path, default=Path("build/published"), help="results")
    parser.add_argument("--list", action="store_true", help="print the files of all rows, and which are missing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make all rows; return 1 if one failed.

    Raises:
        InputError: The files of all rows are missing.
    """
    options = parse(arguments)
    if options.list:
        for name in options.rows:
            print(f"{name}: " + ", ".join(map(str, files(ROWS[name], options))))
            print(*(f"  {path} is not there" for path in missing(ROWS[name], options)), sep="\n")
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    lines, failed = [HEADER], False
    for name in options.rows:
        if absent := missing(ROWS[name], options):
            print(f"{name} is left out. Not there: {', '.join(map(str, absent))}", file=sys.stderr)
            continue
        for budget in options.budgets:
            try:
                lines.append(line(ROWS[name], budget, compress(name, budget, options)))
            except MadtpError as error:
                print(f"{name} at {budget} failed: {error}", file=sys.stderr)
                failed = True
    if len(lines) == 1 and not failed:
        raise InputError("No row has all its files.\nTo see what belongs where, run the same command with --list.")
    print("\n".join(lines))
    (options.folder / "published.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    running.run(main)
