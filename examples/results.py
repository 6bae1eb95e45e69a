"""Every example at several budgets, and every published architecture's GFLOPs: writes results.md beside this file.

    python examples/results.py [--budgets 0.5 0.3 0.2] [--rows nlvr2 vqa ...] [--folder build/results]

A compressed folder that is there already is read, not made again, so that a broken run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from madtp_cli.config import DEFAULT_STEPS, RunSettings
from madtp_cli.errors import MadtpError
from madtp_cli.models.architectures import ARCHITECTURES
from madtp_cli.pipelines.profile import profile
from madtp_cli.reporting.schema import CompressReport

HERE = Path(__file__).parent
#: The paper's rows: the example, and for the second retrieval set how many captions its images have.
ROWS = {
    "nlvr2": ("BLIP on NLVR2", "blip.pt", None),
    "vqa": ("BLIP on VQAv2", "blip-vqa.pt", None),
    "caption": ("BLIP on COCO captions", "blip-caption.pt", None),
    "retrieval": ("BLIP on COCO retrieval", "blip-retrieval.pt", None),
    "retrieval-1": ("BLIP on Flickr30k retrieval", "blip-retrieval.pt", 1),
    "clip": ("CLIP on COCO retrieval", "clip.pt", None),
    "clip-1": ("CLIP on Flickr30k retrieval", "clip.pt", 1),
}
#: Fine-tuning steps at budgets that ask for less; elsewhere as many as the command takes by itself.
STEPS = {"0.5": 0, "0.3": 120}
#: Rows that are shown once more, with so many steps.
LONGER = {("retrieval-1", "0.2"): 1000}
#: The literature's constants, at the architecture and length of text they were measured at, and what they count.
PUBLISHED = {
    "blip-nlvr-base": (132.54, "one pair and a sentence of 36 tokens, as ours"),
    "blip-vqa-base": (186.1, "a batch: 1 image, 32 questions of 14 tokens and 47 answers of 5; ours: one of each"),
    "blip-caption-base": (65.7, "one image and a caption of 15 tokens, as ours"),
    "blip-retrieval-base": (153.2, "a training step: towers twice, 3 matches, queues; ours: one image, text and match"),
    "clip-vit-l-14-336": (395.7, "a training step: towers twice, queues; ours: one image, one text of 77 tokens"),
}  # fmt: skip


def compressed(row: str, budget: str, options: argparse.Namespace, steps: int | None = None) -> CompressReport:
    """The report of one run of `madtp compress`, made now unless it is there; with other `steps` where told."""
    _, source, captions = ROWS[row]
    output = options.folder / "-".join([row, budget, *([] if steps is None else [f"{steps}"])])
    steps = STEPS.get(budget) if steps is None else steps
    if not (output / "report.json").exists():
        command = ["compress", HERE / source, "--gflops-budget", budget, "--output", output, "--overwrite"]
        if captions is not None:
            command += ["--data", scenes(options.folder, captions)]
        if steps is not None:
            command += ["--steps", steps]
        subprocess.run([sys.executable, "-m", "madtp_cli", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return CompressReport.model_validate_json((output / "report.json").read_text("utf-8"))


def scenes(folder: Path, captions: int) -> Path:
    """The second retrieval set, written out."""
    data = folder / f"retrieval-{captions}"
    if not data.exists():
        command = ["scenes", data, "--task", "retrieval", "--captions", captions, "-q"]
        command += ["--train", 4000, "--val", 500, "--test", 1000]
        subprocess.run([sys.executable, "-m", "madtp_cli", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return data


def row_of(row: str, budget: str, report: CompressReport) -> str:
    quality, low, high = report.quality, *report.quality.interval95
    unit = "" if quality.unit == "points" else " %"
    change = f"{quality.change:+.2f}{unit} ({low:+.2f} to {high:+.2f})"
    met = report.budget.achieved_val / report.budget.gflops - 1
    given = report.settings["steps"]
    steps = str(DEFAULT_STEPS if given is None else given)
    cells = [
        ROWS[row][0],
        budget,
        steps,
        f"{met:+.2%}",
        f"{report.gflops.share:.3f}",
        quality.metric,
        f"{quality.dense:.2f}",
    ]
    return " | ".join(["", *cells, f"{quality.pruned:.2f}", change, f"{quality.samples:,}", ""]).strip()


def architectures() -> list[str]:
    """GFLOPs per sample of every published architecture."""
    lines = ["| architecture | GFLOPs per sample | published | what the constant counts |", "|---|---|---|---|"]
    for name in ARCHITECTURES:
        dense = profile(None, RunSettings(), arch=name).gflops.dense
        constant, counts = PUBLISHED.get(name, ("", ""))
        lines.append(f"| {name} | {dense:.2f} | {constant} | {counts} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", nargs="+", default=["0.5", "0.3", "0.2"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--folder", type=Path, default=Path("build/results"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    lines = [
        "# Results", "",
        "Written by `python examples/results.py`. The example checkpoints on the built-in scenes: the budget on",
        "validation data, then test samples that nothing was chosen on; intervals are 95 %, of the paired change.",
        "CIDEr's changes are percent of the dense score. The second retrieval set has one long caption per image; BLIP",
        "was trained on both, CLIP on the first. Where quality rises, the fine-tune also taught the task.",
        "", "| | budget | steps | met | share of GFLOPs on test | metric | dense | pruned | change | samples |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in options.rows:
        for budget in options.budgets:
            for steps in (None, LONGER[row, budget]) if (row, budget) in LONGER else (None,):
                try:
                    lines.append(row_of(row, budget, compressed(row, budget, options, steps)))
                except (subprocess.CalledProcessError, MadtpError) as error:
                    lines.append(f"| {ROWS[row][0]} | {budget} | failed: {error} |")
                print(lines[-1], flush=True)
    lines += ["", "## Architectures", "", "Dense, multiply-adds; images at the published size.", "", *architectures()]
    (HERE / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
