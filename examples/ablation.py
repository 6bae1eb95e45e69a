"""Measure what each part of the default method contributes, on examples/blip.pt without fine-tuning.

    python -m examples.ablation [--gflops-budget 0.2] [--samples 1000]

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

from examples import running
from madtp_cli import config
from madtp_cli.compression.budget import feasible_budget
from madtp_cli.compression.calibration import calibrate
from madtp_cli.compression.student import prunable_student
from madtp_cli.config import CompressSettings
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.intervals import paired_interval95
from madtp_cli.evaluation.run import Measured
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.methods import madtp
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.pruning import density_peaks, importance, thresholds
from madtp_cli.pruning.density_peaks import nearest_more_important


@dataclass(frozen=True)
class Variant:
    """One line of the ablation.

    Attributes:
        title: Text of the line.
        settings: Fields of `PruningSettings` that change.
        parameters: Parameters of the method that change.
        replaced: Module and name of a function that the method calls, and the function to call instead.
    """

    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    replaced: tuple[Any, str, Callable[..., Any]] | None = None

    def changed(self, settings: PruningSettings) -> PruningSettings:
        """Return the pruning settings of this line, given those of the first line."""
        settings = replace(settings, **self.settings)
        return replace(settings, parameters=replace(settings.parameters, **self.parameters))


def equal_distances(values: Tensor, importance: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Replace `density_peaks.nearest_more_important`: the same tokens, but all distances are 1."""
    nearest, distances = nearest_more_important(values, importance, mask)
    return nearest, torch.ones_like(distances)


def equal_importance(class_attention: Tensor, received_attention: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
    """Replace `importance.token_importance`: all prunable tokens are equally important.

    Among equally important tokens the earlier one counts as more important.
    """
    return mask.float()


def without_dictionary(
    class_attention: Tensor | None, received_attention: Tensor | None, attention: Tensor, mask: Tensor
) -> Tensor:
    """Replace `importance.token_importance`: the mean of class attention and received attention.

    Before the first block neither is known, and all patches are equally important.
    """
    known = [score for score in (class_attention, received_attention) if score is not None]
    return torch.stack(known).mean(0) if known else importance.normalise(mask.float(), mask)


def without_dictionary_in_blocks(
    class_attention: Tensor | None, received_attention: Tensor | None, attention: Tensor, mask: Tensor
) -> Tensor:
    """Replace `importance.token_importance`: the dictionary is used before the first block only."""
    if class_attention is None:
        return importance.dictionary_score(attention, mask)
    return without_dictionary(class_attention, received_attention, attention, mask)


def plain_mean(score: Tensor, mask: Tensor) -> Tensor:
    """Replace `thresholds.quadratic_mean`: the mean of each sample's scores."""
    return score.sum(1) / mask.sum(1).clamp_min(1)


#: Settings that turn `--method madtp` into `--method madtp-paper`, whose parameters then have their defaults.
PAPER = {"method": "madtp-paper", "parameters": {}, "scales": {}, "embedding_scale": 0.0}
#: Factors of the threshold scale by tower: of the default method, and of variants of it.
BLOCKS, TEXT_BLOCKS = 8, 4
IMAGES, TEXTS = madtp.PRESET.scales("vision", BLOCKS), madtp.PRESET.scales("text", TEXT_BLOCKS)
#: At least the width of a token.
ALL_CHANNELS = 1024
VARIANTS = (
    Variant("--method madtp, nothing changed"),
    Variant(
        "score is importance alone, without distance",
        replaced=(density_peaks, "nearest_more_important", equal_distances),
    ),
    Variant(
        "score is distance alone, all tokens equally important",
        replaced=(importance, "token_importance", equal_importance),
    ),
    Variant("nothing is pruned before the first block", {"embedding_scale": 0.0}),
    Variant(
        "the same threshold scale in all blocks",
        {"scales": {"vision": replace(madtp.PRESET, rise=1.0).scales("vision", BLOCKS), "text": TEXTS}},
    ),
    Variant(
        "dictionary attention before the first block only",
        replaced=(importance, "token_importance", without_dictionary_in_blocks),
    ),
    Variant("without MAG (no dictionary attention)", replaced=(importance, "token_importance", without_dictionary)),
    Variant("a merged token is attended to as one token", parameters={"proportional": False}),
    Variant("dictionary attention not sharpened (temperature 1)", parameters={"temperature": 1.0}),
    Variant("threshold from the mean, not the quadratic mean", replaced=(thresholds, "quadratic_mean", plain_mean)),
    Variant(
        "every block prunes, not every second block",
        {"scales": {"vision": replace(madtp.PRESET, every=1).scales("vision", BLOCKS), "text": TEXTS}},
    ),
    Variant("received attention from all queries, not from 32", parameters={"queries": 0}),
    Variant(
        "distances from all channels of a token, not from half of them", parameters={"compared_width": ALL_CHANNELS}
    ),
    Variant("texts stay whole", {"scales": {"vision": IMAGES, "text": [0.0] * TEXT_BLOCKS}}),
    Variant("the paper's rule (--method madtp-paper)", PAPER),
)


def measure(session: Session, variant: Variant, settings: CompressSettings, samples: int) -> tuple[Prunable, Measured]:
    """Calibrate one variant to the budget and run it on validation samples."""
    torch.manual_seed(settings.seed)  # the same random dictionary for all variants
    model = prunable_student(session.model, settings.method)
    model.attach(variant.changed(model.pruning or PruningSettings()))
    with mock.patch.object(*variant.replaced) if variant.replaced else nullcontext():
        budget = feasible_budget(session, model, settings.gflops_budget)
        calibrate(session, model, budget, CALIBRATION_SAMPLES)
        return model, run.run_split(session, model, "val", samples)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all variants and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gflops-budget", default="0.2", help="share of the dense GFLOPs (default: 0.2)")
    parser.add_argument("--samples", type=int, default=1000, help="validation pairs (default: 1000)")
    options = parser.parse_args(arguments)
    settings = config.resolve({"gflops_budget": options.gflops_budget, "limit": options.samples}, None, {})
    session = Session.open(Path(__file__).with_name("blip.pt"), settings, ProgressReporter())
    dense = run.run_split(session, session.model, "val", options.samples).scores
    print(f"dense: {session.task.quality(dense):.2f} % of {len(dense):,} validation pairs")
    dense_gflops = sample_costs.dense_gflops(session, "val", options.samples).mean()
    first: list[float] = []
    for variant in VARIANTS:
        model, measured = measure(session, variant, settings, options.samples)
        first = first or measured.scores
        low, high = paired_interval95(first, measured.scores)
        share = measured.gflops(model).mean() / dense_gflops
        quality = session.task.quality(measured.scores)
        print(f"{quality:6.2f} %  ({low:+.1f} to {high:+.1f})  at {share:.3f}  {variant.title}", flush=True)


if __name__ == "__main__":
    running.run(main)
