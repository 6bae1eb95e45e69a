"""Compress and fine-tune with several seeds: the scores of each seed are one file, and are not computed again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from madtp_cli import config
from madtp_cli.checkpoint import hashing
from madtp_cli.checkpoint.atomic_write import write_file
from madtp_cli.checkpoint.locating import locate
from madtp_cli.compression.compress_model import compress_model
from madtp_cli.errors import BudgetError, ResumeError
from madtp_cli.evaluation import run
from madtp_cli.evaluation.quality import paired_difference
from madtp_cli.evaluation.sample_files import FILE_NAME
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CompressReport

#: The seeds of the page. The table of the rows shows the first one.
SEEDS = (0, 1, 2)
INTRODUCTION = """
## Three seeds

The change of the row with three seeds. Each seed has its own dictionary, order of the training samples and calibration.
Seed 0 is the checkpoint of the table above. The other seeds share the outputs of the dense model, as in
`madtp compare`. The mean has the 95 % interval of the test samples, each with the mean of its three scores.

| model and data | budget | seed 0 | seed 1 | seed 2 | mean |
|---|---|---|---|---|---|"""


def open_session(checkpoint: Path, split: str, values: dict[str, Any]) -> Session:
    """Open the session that all seeds share.

    Args:
        checkpoint: The dense checkpoint.
        split: The split on which quality is measured.
        values: Other settings of `madtp compress`, by name.
    """
    settings = config.resolve({"gflops_budget": 1, "split": split, **values}, None, {})
    return Session.open(checkpoint, settings, ProgressReporter())


def scores(
    session: Session,
    checkpoint: Path,
    request: dict[str, Any],
    file: Path,
    change: AbstractContextManager[Any] | None = None,
    title: str = "",
) -> list[float]:
    """Compress with the default method and return the score of each sample; empty if the budget cannot be reached.

    Args:
        session: The dense model and its data.
        checkpoint: The dense checkpoint.
        request: What differs from the settings of the session, for example the budget and the seed.
        file: The scores are read from this file if it exists, and otherwise written to it.
        change: A change of the method, which is entered while the model is compressed and measured.
        title: Name of the change.

    Raises:
        ResumeError: The file is of another checkpoint, other data or other settings.
    """
    settings: Any = session.settings.model_copy(update=request)
    inputs = {
        "checkpoint": hashing.sha256(locate(checkpoint)),
        "data": session.data.source,
        "form": title,
        "settings": settings.model_dump(mode="json"),
    }
    if file.exists():
        known = json.loads(file.read_text("utf-8"))
        if known["inputs"] != inputs:
            raise ResumeError(f"{file} is of another run.\nChoose another --folder, or remove that one.")
        return list(known["scores"])
    torch.manual_seed(settings.seed)
    with change or nullcontext():
        try:
            student = compress_model(replace(session, settings=settings), settings, strict=False).student
            found = [float(score) for score in run.run_split(session, student, settings.split, None).scores]
        except BudgetError:
            found = []
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_file(file, overwrite=True) as new:
        new.write_text(json.dumps({"inputs": inputs, "scores": found}), encoding="utf-8")
    return found


def rows(title: str, checkpoint: Path, data: Path | None, compressed: dict[str, Path], folder: Path) -> list[str]:
    """Return the lines of the table for one example, one per budget.

    Args:
        title: Name of the model and its data.
        checkpoint: The dense checkpoint.
        data: Its data set; the built-in scenes if None.
        compressed: The output of `madtp compress` with the first seed, by budget.
        folder: Where the scores of the other seeds are.
    """
    session, lines = open_session(checkpoint, "test", {"data": data}), []
    for budget, output in compressed.items():
        report = CompressReport.model_validate_json((output / "report.json").read_text("utf-8"))
        request = {"gflops_budget": config.BudgetRequest.parse(budget), "steps": report.settings["steps"]}
        samples = [json.loads(text)["score"] for text in (output / FILE_NAME).read_text("utf-8").splitlines()]
        dense, first = ([float(score[model]) for score in samples] for model in ("dense", "pruned"))
        others = [
            scores(session, checkpoint, {**request, "seed": seed}, folder / f"{budget}-{seed}.json")
            for seed in SEEDS[1:]
        ]
        lines.append(line(session, f"| {title} | {budget} |", dense, [first, *others]))
        print(lines[-1], flush=True)
    return lines


def line(session: Session, start: str, dense: Sequence[float], runs: Sequence[Sequence[float]]) -> str:
    """Return a line of the table: its start, the change of each seed, and their mean with its interval.

    Args:
        session: States the metric, and which samples belong together.
        start: The first cells.
        dense: Score of the dense model on each sample.
        runs: The same of each seed.
    """
    mean = [sum(scores_of_sample) / len(runs) for scores_of_sample in zip(*runs, strict=True)]
    cells = []
    for run_scores in runs:
        change, _, unit = paired_difference(session, dense, run_scores)
        cells.append(f"{change:+.2f}{'' if unit == 'points' else ' %'}")
    change, (low, high), unit = paired_difference(session, dense, mean)
    cells.append(f"{change:+.2f}{'' if unit == 'points' else ' %'} ({low:+.2f} to {high:+.2f})")
    return f"{start} {' | '.join(cells)} |"
