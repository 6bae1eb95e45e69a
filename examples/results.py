"""Compress every example to several budgets and count the GFLOPs of every published architecture; write results.md.

    python -m examples.results [--rows nlvr2 vqa ...] [--parts untrained trained ...] [--folder build/results]
                                  [--budgets 0.5 0.3 0.2] [--compared 0.2] [--compared-after-training 0.2]

The page begins with all methods at equal GFLOPs, without and after fine-tuning, at the budgets of the last two options.
All comparisons take about half a day on two cores. A compressed folder that exists is read and not made again, so an
interrupted run continues where it stopped. `--rows` and `--parts` choose what to measure; all other lines stay as they
are on the page. `--parts` alone writes the page again with new explanations.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import madtp_cli
from examples import encoder_table, method_plot, method_tables, page_tables, range_table, seeds
from madtp_cli.checkpoint.atomic_write import write_file
from madtp_cli.config import DEFAULT_STEPS
from madtp_cli.errors import MadtpError
from madtp_cli.models import architectures
from madtp_cli.reporting.comparison import CompareReport
from madtp_cli.reporting.schema import CompressReport, EvalReport

HERE = Path(__file__).parent
#: Picture of all methods without fine-tuning.
PICTURE = HERE.parent / "docs/images/methods.png"
#: Title and checkpoint of each row, and the captions per image of its retrieval data (None: the default data set).
ROWS = {
    "nlvr2": ("BLIP, NLVR2 task, built-in scenes", "blip.pt", None),
    "vqa": ("BLIP, VQA task, built-in scenes", "blip-vqa.pt", None),
    "caption": ("BLIP, captions of built-in scenes", "blip-caption.pt", None),
    "retrieval": ("BLIP, retrieval, built-in scenes, five captions per image", "blip-retrieval.pt", None),
    "retrieval-1": ("BLIP, retrieval, built-in scenes, one long caption per image", "blip-retrieval.pt", 1),
    "clip": ("CLIP, retrieval, built-in scenes, five captions per image", "clip.pt", None),
    "clip-1": ("CLIP, retrieval, built-in scenes, one long caption per image", "clip.pt", 1),
    "siglip": ("SigLIP, retrieval, built-in scenes, five captions per image", "siglip", None),
}
#: Budgets that the page shows unless others are given, and one that is only in the table of the rows.
BUDGETS, LOWEST = ("0.5", "0.3", "0.2"), "0.1"
#: What can be measured: all methods without and after fine-tuning, and the other tables.
PARTS = ("untrained", "trained", "rows", "seeds", "encoders", "range", "architectures")
#: Fine-tuning steps by budget; other budgets use the default of the command.
STEPS = {"0.5": 0, "0.3": 120}
#: GFLOPs that the literature gives for an architecture, and what they count.
PUBLISHED = {
    "blip-nlvr-base": (132.54, "one image pair and a statement of 36 tokens; the same as ours"),
    "blip-vqa-base": (186.1, "one image, 32 questions of 14 tokens and 47 answers of 5; ours: one of each"),
    "blip-caption-base": (65.7, "one image and a caption of 15 tokens; the same as ours"),
    "blip-retrieval-base": (
        153.2,
        "one training step: both towers twice, 3 matching pairs, feature queues; ours: one image, text and pair",
    ),
    "clip-vit-l-14-336": (
        395.7,
        "one training step: both towers twice, feature queues; ours: one image and one text of 77 tokens",
    ),
}
INTRODUCTION = """\
# Results

Written by `python -m examples.results`. All rows use the small example checkpoints and the built-in scenes, which are
drawn images of handwritten digits and coloured shapes. These are **not** results on NLVR2, VQAv2, COCO or Flickr30k.

* **budget**: the requested share of the dense GFLOPs. It is met on validation samples.
* **steps**: fine-tuning steps.
* **budget error**: relative difference between the GFLOPs on validation samples and the budget.
* **share on test**: GFLOPs of the pruned model divided by GFLOPs of the dense model, on test samples.
* **dense**, **pruned**: quality on test samples, in percent (CIDEr: its usual scale). No choice was made on them.
* **change**: pruned minus dense, in points, with the 95 % interval of the paired difference. For CIDEr, changes are in
  percent of the dense score. Where quality rises, fine-tuning also continued the training on the task.

Retrieval has two data sets: five captions per image, and other images with one long caption each. BLIP was trained on
both, CLIP and SigLIP on the first one only."""
ROWS_INTRODUCTION = """
## The default method on every row

`--method madtp`, the default.

| model and data | budget | steps | budget error | share on test | metric | dense | pruned | change | samples |
|---|---|---|---|---|---|---|---|---|---|"""
ARCHITECTURES_INTRODUCTION = """
## GFLOPs of the published architectures

Multiply-adds of the dense model in billions per sample, at the published image size. "Published" is the figure of the
literature; the last column states what that figure counts.

| architecture | GFLOPs per sample | published | what the published figure counts |
|---|---|---|---|"""


def output_of(row: str, budget: str, folder: Path) -> Path:
    """Return the folder of a compressed checkpoint in the folder of all outputs."""
    return folder / f"{row}-{budget}"


def compress(row: str, budget: str, folder: Path) -> CompressReport:
    """Run `madtp compress`, unless its output exists, and return its report.

    Args:
        row: A key of `ROWS`.
        budget: Share of the dense GFLOPs, or a range of shares.
        folder: Where all outputs are.
    """
    source = ROWS[row][1]
    output, steps = output_of(row, budget, folder), STEPS.get(budget)
    if not (output / "report.json").exists():
        command = ["compress", HERE / source, "--gflops-budget", budget, "--output", output, "--overwrite"]
        command += data_options(row, folder)
        if steps is not None:
            command += ["--steps", steps]
        run_madtp(command)
    return CompressReport.model_validate_json((output / "report.json").read_text("utf-8"))


def index_row(encoder: str, budget: str, folder: Path) -> str:
    """Return the line of an image encoder at a budget; it is compressed unless its output exists."""
    title, source = encoder_table.ENCODERS[encoder]
    output = folder / f"{encoder}-{budget}"
    if not (output / "report.json").exists():
        command: list[object] = ["compress", HERE / source, "--task", "embedding", "--gflops-budget", budget]
        run_madtp([*command, "--output", output, "--overwrite"])
    report = CompressReport.model_validate_json((output / "report.json").read_text("utf-8"))
    return encoder_table.line(title, budget, report)


def range_line(budget: str, folder: Path) -> str:
    """Return the line of a budget in the table of the checkpoint for a range; what exists is not made again."""
    measured = folder / f"nlvr2-range-{budget}.json"
    if not measured.exists():
        compress("nlvr2", range_table.RANGE, folder)
        report = madtp_cli.evaluate(output_of("nlvr2", range_table.RANGE, folder), gflops_budget=budget)
        measured.write_text(report.model_dump_json(), encoding="utf-8")
    alone = compress("nlvr2", budget, folder) if budget in range_table.ALONE else None
    return range_table.line(budget, EvalReport.model_validate_json(measured.read_text("utf-8")), alone)


def data_options(row: str, folder: Path) -> list[object]:
    """Return the options for the data of a row; data that is not the default is written unless it exists."""
    captions = ROWS[row][2]
    return [] if captions is None else ["--data", write_scenes(folder, captions)]


def write_scenes(folder: Path, captions: int) -> Path:
    """Write the retrieval data set with this number of captions per image, unless it exists; return its folder."""
    data = folder / f"retrieval-{captions}"
    if not data.exists():
        command = ["scenes", data, "--task", "retrieval", "--captions", captions, "-q"]
        run_madtp([*command, "--train", 4000, "--val", 500, "--test", 1000])
    return data


def run_madtp(arguments: list[object]) -> None:
    """Run the command line in a new process; its messages stay visible on standard error."""
    subprocess.run([sys.executable, "-m", "madtp_cli", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def table_row(row: str, budget: str, report: CompressReport) -> str:
    """Return the line of the table for one report."""
    quality = report.quality
    low, high = quality.interval95.low, quality.interval95.high
    unit = "" if quality.unit == "points" else " %"
    steps = report.settings["steps"]
    cells = [
        ROWS[row][0],
        budget,
        f"{DEFAULT_STEPS if steps is None else steps}",
        f"{report.budget.achieved_val / report.budget.gflops - 1:+.2%}",
        f"{report.gflops.share:.3f}",
        quality.metric,
        f"{quality.dense:.2f}",
        f"{quality.pruned:.2f}",
        f"{quality.change:+.2f}{unit} ({low:+.2f} to {high:+.2f})",
        f"{quality.samples:,}",
    ]
    return f"| {' | '.join(cells)} |"


def seeds_rows(row: str, budgets: list[str], folder: Path) -> list[str]:
    """Return the lines of a row with the changes of all seeds and their mean, one per budget that was reached."""
    title, source, captions = ROWS[row]
    data = None if captions is None else write_scenes(folder, captions)
    outputs = {budget: output_of(row, budget, folder) for budget in budgets}
    compressed = {budget: output for budget, output in outputs.items() if (output / "report.json").exists()}
    return seeds.rows(title, HERE / source, data, compressed, folder / f"seeds-{row}")


def architecture_rows() -> list[str]:
    """Return one line with the GFLOPs per sample of each published architecture."""
    lines = []
    for name in architectures():
        dense = madtp_cli.profile(arch=name).gflops.dense
        published, counts = PUBLISHED.get(name, ("", ""))
        lines.append(f"| {name} | {dense:.2f} | {published} | {counts} |")
    return lines


def compared(row: str, budgets: list[str], steps: int, folder: Path) -> CompareReport:
    """Run `madtp compare` with all methods, or continue it, and return its report."""
    output = folder / f"compared-{row}-{steps}"
    command = ["compare", HERE / ROWS[row][1], "--budgets", ",".join(budgets), "--steps", steps, "--no-time"]
    run_madtp([*command, *data_options(row, folder), "--output", output])
    return CompareReport.model_validate_json((output / "comparison.json").read_text("utf-8"))


def result_rows(row: str, budgets: list[str], folder: Path) -> list[str]:
    """Return the lines of one example, one per budget; a run that fails has a line that says so."""
    lines = []
    for budget in budgets:
        try:
            lines.append(table_row(row, budget, compress(row, budget, folder)))
        except (subprocess.CalledProcessError, MadtpError) as error:
            lines.append(f"| {ROWS[row][0]} | {budget} | failed: {error} |")
        print(lines[-1], flush=True)
    return lines


def methods_at_equal_gflops(options: argparse.Namespace, page: str) -> list[str]:
    """Run the comparisons that the options ask for, and return the tables of all that are known."""
    lines: list[str] = []
    for part, steps, budgets in (
        ("untrained", 0, options.compared),
        ("trained", DEFAULT_STEPS, options.compared_after_training),
    ):
        tables = {budget: method_tables.on_page(page, budget, steps) for budget in highest_first([*BUDGETS, *budgets])}
        for row in options.rows if part in options.parts else ():
            report = compared(row, budgets, steps, options.folder)
            for budget in budgets:
                tables[budget][row] = method_tables.column(row, report, budget)
        lines += method_tables.tables(tables, steps)
        if part == "untrained":
            method_plot.draw(tables, PICTURE)
    return [method_tables.INTRODUCTION, *lines]


def highest_first(budgets: Iterable[str]) -> list[str]:
    """Return each budget once."""
    return sorted(set(budgets), key=float, reverse=True)


def measured_rows(options: argparse.Namespace, page: str) -> list[str]:
    """Return the tables of the rows, of the seeds and of the image encoders, with their introductions."""
    rows: list[str] = []
    seed_lines: list[str] = []
    encoders: list[str] = []
    for row in options.rows:
        if "rows" in options.parts:
            rows += result_rows(row, options.budgets, options.folder)
        if "seeds" in options.parts:
            seed_lines += seeds_rows(row, [budget for budget in options.budgets if budget != LOWEST], options.folder)
    if "encoders" in options.parts:
        encoders = [index_row(name, budget, options.folder) for name in encoder_table.ENCODERS for budget in BUDGETS]
    lines = []
    for introduction, titles, budgets, measured in (
        (ROWS_INTRODUCTION, ROWS, [*BUDGETS, LOWEST, *options.budgets], rows),
        (seeds.INTRODUCTION, ROWS, [*BUDGETS, *options.budgets], seed_lines),
        (encoder_table.INTRODUCTION, encoder_table.ENCODERS, BUDGETS, encoders),
    ):
        keys = [(titles[name][0], budget) for name in titles for budget in highest_first(budgets)]
        lines += page_tables.complete(introduction, keys, measured, page)
    return lines


def other_tables(options: argparse.Namespace, page: str) -> list[str]:
    """Return the rest of the page: the checkpoint for a range, what was tried, and the architectures."""
    measured = [range_line(budget, options.folder) for budget in range_table.BUDGETS if "range" in options.parts]
    counted = architecture_rows() if "architectures" in options.parts else []
    return [
        *page_tables.complete(range_table.INTRODUCTION, [(budget,) for budget in range_table.BUDGETS], measured, page),
        "",
        (HERE / "tried.md").read_text("utf-8").rstrip(),
        *page_tables.complete(ARCHITECTURES_INTRODUCTION, [(name,) for name in architectures()], counted, page),
    ]


def main() -> None:
    """Make all rows and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=[*BUDGETS, LOWEST], help="shares of the dense GFLOPs")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="examples (default: all)")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="what to measure (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("build/results"), help="where compressed folders are")
    for name, default in (("--compared", BUDGETS), ("--compared-after-training", BUDGETS[-1:])):
        parser.add_argument(name, nargs="+", default=list(default), help="budgets at which all methods are compared")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file = HERE / "results.md"
    page = file.read_text("utf-8") if file.exists() else ""
    lines = [INTRODUCTION, *methods_at_equal_gflops(options, page), *measured_rows(options, page)]
    lines += other_tables(options, page)
    with write_file(file, overwrite=True) as new:
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
