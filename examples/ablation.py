"""What each part of the default method is worth: examples/blip.pt at a fifth of its GFLOPs, without training.

    python examples/ablation.py [--gflops-budget 0.2] [--samples 1000]

Every line changes one part of `--method madtp`; the last is the paper's rule. Validation
pairs, paired intervals against the first line; the knob meets the budget anew for each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from madtp_cli import config
from madtp_cli.compression import budget, calibration
from madtp_cli.compression.student import prunable_student
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.intervals import paired_interval95
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.progress import ProgressReporter
from madtp_cli.pruning import dynamic
from madtp_cli.pruning.density_peaks import nearest_more_important

#: Settings of `--method madtp-paper`.
PAPER = {
    "method": "madtp-paper", "proportional": False, "temperature": 1.0, "queries": 0, "scales": {},
}  # fmt: skip
#: What each line changes: settings of the pruning, or one function of the method.
WITHOUT: dict[str, dict[str, Any] | tuple[Any, str, Callable[..., Any]]] = {
    "as it is": {},
    "importance alone": (dynamic.density_peaks, "nearest_more_important", lambda *given: _leaders_alike(*given)),
    "distinctness alone": (dynamic, "_importance", lambda scores, *given: _earlier_first(scores[0])),
    "without the dictionary's score": (dynamic, "_importance", lambda scores, *given: torch.stack(scores).mean(0)),
    "merged tokens attended to as one token": {"proportional": False},
    "the dictionary's attention not sharpened (temperature 1)": {"temperature": 1.0},
    "a multiple of the plain mean as threshold": (dynamic, "quadratic_mean", lambda score, count: score.sum(1) / count),
    "every block prunes, not every second": {"scales": {"text": [0.0] * 4}},
    "all queries asked, not 32": {"queries": 0},
    "whole tokens compared, not half of their numbers": (dynamic.density_peaks, "spacing", lambda width: 1),
    "the text pruned too": {"scales": {"vision": [1.0, 0.0] * 4}},
    "the paper's rule (--method madtp-paper)": PAPER,
}


def _leaders_alike(*given: Any) -> tuple[Tensor, Tensor]:
    """The same leaders, but nobody is more distinct than another."""
    leader, distinct = nearest_more_important(*given)
    return leader, torch.ones_like(distinct)


def _earlier_first(score: Tensor) -> Tensor:
    """All alike important; the rule then takes the earlier for the more important."""
    return torch.ones_like(score)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gflops-budget", default="0.2")
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args(arguments)
    settings = config.resolve({"gflops_budget": options.gflops_budget, "limit": options.samples}, None, {})
    session = Session.open(Path(__file__).with_name("blip.pt"), settings, ProgressReporter())
    dense = run.run_split(session, session.model, "val", options.samples).scores
    print(f"dense: {session.task.quality(dense):.2f} % of {len(dense):,} validation pairs")
    first: list[float] = []
    for name, change in WITHOUT.items():
        torch.manual_seed(settings.seed)  # the same dictionary for all
        model = prunable_student(session.model, settings.method)
        if isinstance(change, dict):
            model.attach(replace(model.pruning or PruningSettings(), **change))
        with nullcontext() if isinstance(change, dict) else mock.patch.object(*change):
            target = budget.feasible_budget(session, model, settings.gflops_budget)
            calibration.calibrate(session, model, target, CALIBRATION_SAMPLES)
            measured = run.run_split(session, model, "val", options.samples)
        first = first or measured.scores
        low, high = paired_interval95(first, measured.scores)
        share = measured.gflops(model).mean() / sample_costs.dense_gflops(session, "val", options.samples).mean()
        quality = session.task.quality(measured.scores)
        print(f"{quality:6.2f} %  ({low:+.1f} to {high:+.1f})  at {share:.3f}  {name}", flush=True)


if __name__ == "__main__":
    main()
