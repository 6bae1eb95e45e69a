"""Measure what the alignment dictionary (MAG) is worth after fine-tuning, with several seeds.

    python -m examples.mag_ablation [examples/blip.pt] [--data DIR] [--budgets 0.2 0.1] [--seeds 3] [--steps 360]
                                    [--forms default none ...] [--limit N] [--folder build/mag]

By default these forms are measured: the default method; no score of the dictionary, so that all patches are equally
important before the first block; and the distance from the mean patch there instead. The others are in `guidance`. For
those where the text or a prior weights the atoms, the model must be a BLIP. Each form goes through the same allocation,
calibration and fine-tuning as `madtp compress`, once per seed and budget. Quality is measured on validation samples.
Each run is one file of the folder and is not made again, so that an interrupted command continues where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from examples import guidance, running, seeds
from examples.ablation import without_dictionary
from madtp_cli import config
from madtp_cli.config import DEFAULT_STEPS
from madtp_cli.evaluation import run
from madtp_cli.evaluation.quality import paired_difference
from madtp_cli.evaluation.session import Session
from madtp_cli.methods import BlockInputs, Rule
from madtp_cli.methods._density_score import DensityScore
from madtp_cli.pruning import importance

#: Enters a change of the method, given the dense model and its data.
Change = Callable[[Session], AbstractContextManager[Any]]


def distance_instead(inputs: BlockInputs, rule: Rule) -> DensityScore:
    """Replace `DensityScore.of`: no dictionary; before the first block, importance is the distance from the mean patch.

    Args:
        inputs: The tokens and attention scores of a block.
        rule: The parameters of the method.
    """
    known = [score for score in (inputs.class_attention, inputs.received_attention) if score is not None]
    weight = torch.stack(known).mean(0) if known else importance.normalise(_distance_from_mean(inputs), inputs.mask)
    return DensityScore.of_importance(inputs, rule, weight)


def _distance_from_mean(inputs: BlockInputs) -> Tensor:
    """Return the squared distance of each token from the mean of its sample, [batch, longest]."""
    values, mask = inputs.token_values().float(), inputs.mask[:, :, None]
    mean = (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp_min(1)
    return (values - mean).square().sum(-1)


def replacing(*target: Any) -> Change:
    """Return the change that replaces an attribute; the arguments are those of `mock.patch.object`."""
    return lambda _: mock.patch.object(*target)


def guided(**options: bool) -> Change:
    """Return a form of guidance; the arguments are those of `guidance.form`."""
    return lambda session: guidance.form(session, **options)


#: The forms: title and change; the first one is the default method.
FORMS: dict[str, tuple[str, Change | None]] = {
    "default": ("`--method madtp`", None),
    "none": ("without MAG", replacing(importance, "token_importance", without_dictionary)),
    "distance": ("without MAG, distance from the mean patch", replacing(DensityScore, "of", distance_instead)),
    "text": ("the text weights the atoms", guided(by_text=True)),
    "prior": ("a prior of the training texts weights the atoms", guided(by_text=False)),
    "aligned": ("dictionary aligned first", guided(aligned=True)),
    "aligned-text": ("dictionary aligned first, the text weights the atoms", guided(by_text=True, aligned=True)),
    "contrastive": ("contrastive alignment loss", guided(contrastive=True)),
}
#: The forms that are measured by default.
MEASURED = ("default", "none", "distance")


def lines(
    session: Session, checkpoint: Path, forms: Sequence[str], budget: str, runs_of_each: int, folder: Path
) -> list[str]:
    """Return a line of the table for each form at a budget; changes are against the first form."""
    found, first = [], list[float]()
    for form in forms:
        title, change_of = FORMS[form]
        runs = []
        for seed in range(runs_of_each):
            request = {"gflops_budget": config.BudgetRequest.parse(budget), "seed": seed}
            file = folder / f"{form}-{budget}-{seed}.json"
            change = change_of(session) if change_of else None
            runs.append(seeds.scores(session, checkpoint, request, file, change, title))
        if not all(runs):
            found.append(f"| {budget} | {title} | not reachable | | |")
            continue
        mean = [sum(scores) / runs_of_each for scores in zip(*runs, strict=True)]
        first = first or mean
        difference, (low, high), _ = paired_difference(session, first, mean)
        of_seeds = " / ".join(f"{session.task.quality(scores):.2f}" for scores in runs)
        text = "" if mean is first else f"{difference:+.2f} ({low:+.2f} to {high:+.2f})"
        found.append(f"| {budget} | {title} | {session.task.quality(mean):.2f} | {of_seeds} | {text} |")
        print(found[-1], flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all forms and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=running.HelpFormatter)
    example = Path(__file__).with_name("blip.pt")
    parser.add_argument("checkpoint", nargs="?", type=Path, default=example, help="default: examples/blip.pt")
    parser.add_argument("--data", type=Path, help="data set (default: the built-in scenes)")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(MEASURED), help="forms of the dictionary")
    parser.add_argument("--budgets", nargs="+", default=["0.2", "0.1"], help="shares of the dense GFLOPs")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each form")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS, help="fine-tuning steps")
    parser.add_argument("--limit", type=int, help="use the first samples of each split only")
    parser.add_argument("--folder", type=Path, default=Path("build/mag"), help="where the scores are kept")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    given = {"data": options.data, "steps": options.steps, "limit": options.limit}
    session = seeds.open_session(options.checkpoint, "val", given)
    dense = run.run_split(session, session.model, "val", None)
    print(f"dense: {session.task.quality(dense.scores):.2f} % of {dense.samples:,} validation samples", flush=True)
    table = [
        row
        for budget in options.budgets
        for row in lines(session, options.checkpoint, options.forms, budget, options.seeds, options.folder)
    ]
    print("\n".join(["", "| budget | score | mean | seeds | change |", "|---|---|---|---|---|", *table]))


if __name__ == "__main__":
    running.run(main)
