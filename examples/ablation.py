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
from madtp_cli.compression import fine_tuning
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.intervals import paired_interval95
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.progress import ProgressReporter
from madtp_cli.pruning import density_peaks, importance, thresholds
from madtp_cli.pruning.density_peaks import nearest_more_important

#: Settings of `--method madtp-paper`.
PAPER = {
    "method": "madtp-paper", "parameters": {}, "scales": {},
}  # fmt: skip
#: What each line changes: settings of the pruning, or one function of the method.
WITHOUT: dict[str, dict[str, Any] | tuple[Any, str, Callable[..., Any]]] = {
    "as it is": {},
    "importance alone": (density_peaks, "nearest_more_important", lambda *given: _leaders_alike(*given)),
    "distinctness alone": (importance, "token_importance", lambda *given: given[3].float()),
    "without the dictionary's score": (importance, "token_importance", lambda *given: torch.stack(given[:2]).mean(0)),
    "merged tokens attended to as one token": {"parameters": {"proportional": False}},
    "the dictionary's attention not sharpened (temperature 1)": {"parameters": {"temperature": 1.0}},
    "a multiple of the plain mean as threshold": (thresholds, "quadratic_mean", lambda *given: _mean(*given)),
    "every block prunes, not every second": {"scales": {"text": [0.0] * 4}},
    "all queries asked, not 32": {"parameters": {"queries": 0}},
    "whole tokens compared, not half of their numbers": (density_peaks, "spacing", lambda *given: 1),
    "the text pruned too": {"scales": {"vision": [1.0, 0.0] * 4}},
    "the paper's rule (--method madtp-paper)": PAPER,
}


def _leaders_alike(*given: Any) -> tuple[Tensor, Tensor]:
    """The same leaders, but nobody is more distinct than another."""
    leader, distinct = nearest_more_important(*given)
    return leader, torch.ones_like(distinct)


def _mean(score: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each sample's scores."""
    return score.sum(1) / mask.sum(1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gflops-budget", default="0.2")
    parser.add_argument("--samples", type=int, default=1000)
    options = parser.parse_args(arguments)
    settings = config.resolve({"gflops_budget": options.gflops_budget, "limit": options.samples}, None, {})
    session = Session.open(Path(__file__).with_name("blip.pt"), settings, ProgressReporter())
    dense = session.run(session.model, "val", options.samples).scores
    print(f"dense: {session.task.quality(dense):.2f} % of {len(dense):,} validation pairs")
    first: list[float] = []
    for name, change in WITHOUT.items():
        torch.manual_seed(settings.seed)  # the same dictionary for all
        model = fine_tuning.attached(session.model, settings)
        if isinstance(change, dict):
            model.attach(replace(model.pruning or PruningSettings(), **change))
        with nullcontext() if isinstance(change, dict) else mock.patch.object(*change):
            target = fine_tuning.feasible_budget(session, model, options.gflops_budget)
            fine_tuning.calibrated(session, model, target, CALIBRATION_SAMPLES)
            measured = session.run(model, "val", options.samples)
        first = first or measured.scores
        low, high = paired_interval95(first, measured.scores)
        share = measured.gflops(model).mean() / sessions.dense_gflops(session, "val", options.samples).mean()
        quality = session.task.quality(measured.scores)
        print(f"{quality:6.2f} %  ({low:+.1f} to {high:+.1f})  at {share:.3f}  {name}", flush=True)


if __name__ == "__main__":
    main()
