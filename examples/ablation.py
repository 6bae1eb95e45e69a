"""Measure what each part of the default method contributes, on examples/blip.pt without fine-tuning.

    python examples/ablation.py [--gflops-budget 0.2] [--samples 1000]

Each line changes one part of `--method madtp`. The last line is the rule of the paper. For each line the threshold
scale is calibrated again, so that all lines have the same cost. Quality is measured on validation pairs of the
built-in scenes. The interval in brackets is the 95 % interval of the paired difference to the first line, in points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from madtp_cli import config
from madtp_cli.compression import fine_tuning
from madtp_cli.config import CompressSettings
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.intervals import paired_interval95
from madtp_cli.evaluation.run import Measured
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.pruning import dynamic
from madtp_cli.pruning.density_peaks import nearest_more_important


@dataclass(frozen=True)
class Variant:
    """One line of the ablation: settings that change, or a function of the method that is replaced.

    `replaced` has the module or class, the name of the function, and the new function.
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    replaced: tuple[Any, str, Callable[..., Any]] | None = None


def equal_distances(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return the nearest more important tokens, with all distances equal to 1."""
    nearest, distances = nearest_more_important(*arguments)
    return nearest, torch.ones_like(distances)


def equal_importance(scores: Sequence[Tensor], *_: Any) -> Tensor:
    """Return the same importance for all tokens; among equals, the earlier token counts as more important."""
    return torch.ones_like(scores[0])


def without_dictionary(scores: Sequence[Tensor], *_: Any) -> Tensor:
    """Return the mean of class attention and received attention, without dictionary attention."""
    return torch.stack(list(scores)).mean(0)


def plain_mean(score: Tensor, count: Tensor) -> Tensor:
    """Return the mean of each sample's scores instead of the quadratic mean."""
    return score.sum(1) / count


#: Settings that turn `--method madtp` into `--method madtp-paper`.
PAPER = {"method": "madtp-paper", "proportional": False, "temperature": 1.0, "queries": 0, "scales": {}}
VARIANTS = (
    Variant("--method madtp, nothing changed"),
    Variant(
        "score is importance alone, without distance",
        replaced=(dynamic.density_peaks, "nearest_more_important", equal_distances),
    ),
    Variant(
        "score is distance alone, all tokens equally important", replaced=(dynamic, "_importance", equal_importance)
    ),
    Variant("importance without dictionary attention", replaced=(dynamic, "_importance", without_dictionary)),
    Variant("a merged token is attended to as one token", {"proportional": False}),
    Variant("dictionary attention not sharpened (temperature 1)", {"temperature": 1.0}),
    Variant("threshold from the mean, not the quadratic mean", replaced=(dynamic, "quadratic_mean", plain_mean)),
    Variant("every block prunes, not every second block", {"scales": {"text": [0.0] * 4}}),
    Variant("received attention from all queries, not from 32", {"queries": 0}),
    Variant(
        "distances from all channels of a token, not from half of them",
        replaced=(dynamic.density_peaks, "spacing", lambda width: 1),
    ),
    Variant("text tokens are pruned too", {"scales": {"vision": [1.0, 0.0] * 4}}),
    Variant("the paper's rule (--method madtp-paper)", PAPER),
)


def measure(session: Session, variant: Variant, settings: CompressSettings, samples: int) -> tuple[Prunable, Measured]:
    """Calibrate one variant to the budget and run it on validation samples."""
    torch.manual_seed(settings.seed)  # the same random dictionary for all variants
    model = fine_tuning.attached(session.model, settings)
    model.attach(replace(model.pruning or PruningSettings(), **variant.settings))
    with mock.patch.object(*variant.replaced) if variant.replaced else nullcontext():
        budget = fine_tuning.feasible_budget(session, model, settings.gflops_budget)
        fine_tuning.calibrated(session, model, budget, CALIBRATION_SAMPLES)
        return model, session.run(model, "val", samples)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all variants and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gflops-budget", default="0.2", help="share of the dense GFLOPs (default: 0.2)")
    parser.add_argument("--samples", type=int, default=1000, help="validation pairs (default: 1000)")
    options = parser.parse_args(arguments)
    settings = config.resolve({"gflops_budget": options.gflops_budget, "limit": options.samples}, None, {})
    session = Session.open(Path(__file__).with_name("blip.pt"), settings, ProgressReporter())
    dense = session.run(session.model, "val", options.samples).scores
    print(f"dense: {session.task.quality(dense):.2f} % of {len(dense):,} validation pairs")
    dense_gflops = sessions.dense_gflops(session, "val", options.samples).mean()
    first: list[float] = []
    for variant in VARIANTS:
        model, measured = measure(session, variant, settings, options.samples)
        first = first or measured.scores
        low, high = paired_interval95(first, measured.scores)
        share = measured.gflops(model).mean() / dense_gflops
        quality = session.task.quality(measured.scores)
        print(f"{quality:6.2f} %  ({low:+.1f} to {high:+.1f})  at {share:.3f}  {variant.title}", flush=True)


if __name__ == "__main__":
    main()
