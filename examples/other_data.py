"""Train a small model on data that others made, compare pruning methods on it, and write other_data.md.

    python -m examples.other_data easy-vqa SOURCE     a BLIP for VQA; SOURCE is the folder easy_vqa/data of the package
    python -m examples.other_data cifar10 SOURCE      a CLIP for classification; SOURCE is a zip file of photographs

`pip download --no-deps easy-vqa` gets the first one; unpack it with `python -m zipfile -e`. The zip file has
train/<class>/1.jpg and test/<class>/1.jpg. Nothing else is downloaded.

The image tower starts from the one of examples/blip.pt, and all other weights from random values. Data, checkpoint
and comparisons are folders in --folder. What exists there is not made again, so an interrupted run continues where it
stopped. The page has every comparison that is complete. Training uses one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples import running, train
from examples.training import other_sets
from examples.training.checkpoints import build_model, load_image_tower, save_blip, save_clip
from examples.training.vocabularies import bert_tokenizer, clip_tokenizer
from madtp_cli import data, tasks
from madtp_cli.checkpoint import processors
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.data.batches import batches
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.reporting import comparison_tables
from madtp_cli.reporting.comparison import CompareReport
from madtp_cli.tasks.classification import PROMPT, TEMPLATES

HERE = Path(__file__).parent
BUDGETS = ("0.5", "0.2")
METHODS = ("madtp", "tome", "pitome", "random", "resize")
#: Side of the images in pixels: the size of easy-VQA, and twice the size of CIFAR-10.
IMAGE_SIZE = 64
BATCH = 64
#: Texts of an image in CLIP's training; the first one is the text of the measurements.
PROMPTS = (*TEMPLATES, "a {}.", "a small photo of a {}.", "a blurry photo of the {}.", "this is a {}.")
INTRODUCTION = (
    """\
# Results on data that others made

Written by `python -m examples.other_data`. It trains two small models for some minutes on one CPU core, and compares
pruning methods on them with `madtp compare`. All methods use the same budget search, cost formula and seed.

* **easy-VQA** (Victor Zhou, MIT licence): 5,000 generated images of 64 pixels with one coloured shape each, and 48,248
  questions with 13 answers. The official splits; validation uses images of the train split.
* **CIFAR-10** (Krizhevsky 2009): photographs of 32 pixels in ten classes, enlarged to 64 pixels. The CLIP was trained
  with the prompts of these classes alone, and classifies with the text "a photo of a {}.".

**Limits.** One shape on a plain background is not VQAv2, and 32-pixel photographs are not COCO. Both models are small
and have seen little data. They show how the methods compare on images and questions that were not made for madtp; they
do not show how good a model can be. One seed each.

`tome` and `pitome` merge at most half of the tokens in each block, so they may not reach a small budget. The
words in the last column are those of `madtp compare`:

"""
    + f"{comparison_tables.LEGEND}\n"
)


@dataclass(frozen=True)
class Example:
    """A data set and the model that is trained on it.

    Attributes:
        title: Name of the data set, as the checkpoint states it.
        kind: The model's key in `examples.training.checkpoints.MODELS`.
        task: The task of the comparison.
        schema: Schema of the rows.
        frozen: Share of the training in which the image tower does not change.
        convert: Writes the data in a layout that madtp reads.
        tokenizer: Builds the tokenizer, given the words of the data.
        save: Writes the checkpoint.
        options: Options of madtp for what the checkpoint file does not state.
    """

    title: str
    kind: str
    task: str
    schema: str
    frozen: float
    convert: Callable[[Path, Path], None]
    tokenizer: Callable[[set[str]], Any]
    save: Callable[..., None]
    options: tuple[str, ...] = ()


EXAMPLES = {
    "easy-vqa": Example(
        title="easy-VQA",
        kind="vqa",
        task="vqa",
        schema="questions",
        frozen=train.FROZEN,
        convert=other_sets.write_easy_vqa,
        tokenizer=lambda words: bert_tokenizer(more=words),
        save=save_blip,
    ),
    "cifar10": Example(
        title="CIFAR-10",
        kind="clip",
        task="classification",
        schema="classes",
        frozen=0,
        convert=other_sets.write_cifar10,
        tokenizer=lambda words: clip_tokenizer(train.TEXT_POSITIONS, more=words),
        save=save_clip,
        options=("--activation", "quick_gelu"),
    ),
}


class Prompted:
    """Batches for CLIP's contrastive loss: images, half of them mirrored, and one prompt of the class of each.

    Images of one class match each other's prompts, because they have the same label.
    """

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return pixel_values, input_ids, attention_mask and labels of some rows."""
        pixels = pixel_values([row.images[0] for row in rows], processor.image_processor)
        mirrored = torch.rand(len(rows)) < 0.5
        pixels[mirrored] = pixels[mirrored].flip(-1)
        chosen = torch.randint(len(PROMPTS), (len(rows),)).tolist()
        texts = [PROMPTS[number].format(row.text) for number, row in zip(chosen, rows, strict=True)]
        labels = torch.tensor([row.label for row in rows])
        return {"pixel_values": pixels, "labels": labels, **PROMPT.encode(texts, processor)}


def words_of(rows: Dataset) -> set[str]:
    """Return the words of the texts and answers of a data set, and of the prompts."""
    texts = {row.text for row in rows.split("train")} | set(rows.answers) | set(PROMPTS)
    return {word for text in texts for word in "".join(c if c.isalnum() else " " for c in text.lower()).split()}


def endless(rows: Sequence[Row], collator: Any, processor: Any, steps: int) -> Iterator[dict[str, Tensor]]:
    """Yield training batches without the first `steps`; every pass over the rows has another order."""
    passes, done = divmod(steps, math.ceil(len(rows) / BATCH))
    for number in itertools.count(passes):
        start = BATCH * done if number == passes else 0
        yield from batches(rows, collator, processor, batch_size=BATCH, seed=number, workers=0, start=start)


def train_model(example: Example, rows: Dataset, minutes: float, folder: Path) -> None:
    """Train the model of an example and write model.pt, its tokenizer and the record training.json.

    A training that was interrupted is continued.
    """
    torch.set_num_threads(1)
    torch.manual_seed(train.SEED)
    reuse_freed_memory()
    tokenizer = example.tokenizer(words_of(rows))
    model = build_model(example.kind, len(tokenizer), IMAGE_SIZE)
    load_image_tower(model, example.kind, HERE / "blip.pt")
    processor = processors.build(model.config, tokenizer)
    task = tasks.prepared(example.task, processor, rows)
    collator = Prompted() if example.schema == "classes" else task
    stream, state = partial(endless, rows.split("train"), collator, processor), folder / "training.state"
    steps = train.train(model.train(), stream, minutes, example.frozen, state)
    record = {"minutes": minutes, "steps": steps, "batch": BATCH, "train_items": len(rows.split("train"))}
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    example.save(model, tokenizer, folder / "model.pt", folder / "model-tokenizer", example.title)
    state.unlink(missing_ok=True)


def compare(example: Example, folder: Path, steps: int, budgets: Sequence[str]) -> None:
    """Run `madtp compare` on a trained model; points that exist are not computed again."""
    command = ["compare", folder / "model.pt", "--data", folder / "data", "--task", example.task, *example.options]
    command += ["--methods", ",".join(METHODS), "--budgets", ",".join(budgets), "--steps", steps, "--no-time"]
    command += ["--output", folder / f"steps-{steps}"]
    subprocess.run([sys.executable, "-m", "madtp_cli", *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def section(example: Example, folder: Path) -> list[str]:
    """Return the lines of the page about one data set; none if no comparison of it is complete."""
    found = [CompareReport.model_validate_json(file.read_text("utf-8")) for file in folder.glob("*/comparison.json")]
    if not found:
        return []
    record = json.loads((folder / "training.json").read_text("utf-8"))
    lines = [
        f"## {example.title}",
        "",
        f"Trained for {record['minutes']:g} minutes of CPU time: {record['steps']:,} steps with {record['batch']} of "
        f"{record['train_items']:,} samples.",
    ]
    for report in sorted(found, key=lambda report: report.steps):
        lines += ["", *table(report)]
    return [*lines, ""]


def table(report: CompareReport) -> list[str]:
    """Return the table of a comparison."""
    training = f"After {report.steps} fine-tuning steps" if report.steps else "Without training"
    lines = [
        f"{training}; {report.metric} in percent on {report.samples:,} {report.split} samples. Changes are in points, "
        "with the paired 95 % interval.",
        "",
        "| budget | method | share of dense GFLOPs | quality | change to dense | difference to madtp | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report.rows:
        budget, method, _, share, quality, to_dense, to_madtp, _, marks = comparison_tables.cells(row)
        lines.append(f"| {' | '.join([budget, method, share, quality, to_dense, to_madtp, marks])} |")
    return lines


def write_page(folder: Path, file: Path) -> None:
    """Write the page with the comparisons of all data sets."""
    sections = [line for name, example in EXAMPLES.items() for line in section(example, folder / name)]
    file.write_text("\n".join([INTRODUCTION, *sections]).rstrip() + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing for one data set, and write the page."""
    options = parse(arguments)
    example, folder = EXAMPLES[options.data], options.folder / options.data
    if not (folder / "data").exists():
        example.convert(options.source, folder / "data")
    if not (folder / "model.pt").exists():
        train_model(example, data.read(folder / "data", example.schema), options.minutes, folder)
    for steps in options.steps:
        compare(example, folder, steps, options.budgets)
        write_page(options.folder, options.page)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=running.HelpFormatter)
    parser.add_argument("data", choices=EXAMPLES, help="data set")
    parser.add_argument(
        "source", type=Path, help="the folder easy_vqa/data of the package, or the zip file of CIFAR-10"
    )
    parser.add_argument("--minutes", type=float, default=10, help="CPU time of the training in minutes")
    parser.add_argument("--steps", type=int, nargs="*", default=[0], help="fine-tuning steps, one table each")
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), help="shares of the dense GFLOPs")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("build/other-data"),
        help="data, checkpoints and comparisons",
    )
    parser.add_argument("--page", type=Path, default=HERE / "other_data.md", help="page to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    running.run(main)
