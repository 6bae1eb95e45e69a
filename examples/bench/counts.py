"""How many tokens each image of a bench keeps: as trained examples do, or all alike; and a rule that keeps so many.

What random weights keep is no trained model's choice. So the counts of `examples/blip.pt`, brought to the same budget
without a fine-tune, are imposed on the full-size model: the same shares of an image's tokens at the same depth, of
each image in turn and hence with their spread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from madtp_cli import config
from madtp_cli.compression import calibration
from madtp_cli.compression.budget import Budget, feasible_budget
from madtp_cli.compression.student import prunable_student
from madtp_cli.compression.threshold_search import search
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.run import Batch, ComputeConfig
from madtp_cli.evaluation.session import Session
from madtp_cli.flops.counts import Counts, TokenCounts
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.pruning import dynamic

#: [CLS], which is never pruned.
PINNED = 1


def example_shares(source: Path, budget: float, pairs: int) -> np.ndarray:
    """What share of its prunable tokens each image has left after each block of an example, [images, blocks]."""
    settings = config.resolve({"gflops_budget": str(budget), "limit": pairs}, None, {})
    bench = Session.open(source, settings, ProgressReporter())
    torch.manual_seed(settings.seed)
    student = prunable_student(bench.model, settings.method)
    calibration.calibrate(bench, student, feasible_budget(bench, student, settings.gflops_budget), None)
    images = run.run_split(bench, student, "val").counts["vision"]
    tokens = images.entered[0] - PINNED
    return ((images.left - PINNED) / tokens).reshape(len(images.left), -1).T


def own_spread(model: Prunable, batch: Batch, compute: ComputeConfig, budget: float) -> list[tuple[float, ...]]:
    """The `spread` that the rule itself gives random weights, at the knob that meets the budget on this batch."""
    run.set_threshold_scale(model, 0.0)
    dense = run.mean_gflops(model, [batch], compute)

    def cost(threshold_scale: float) -> float:
        run.set_threshold_scale(model, threshold_scale)
        return run.mean_gflops(model, [batch], compute)

    run.set_threshold_scale(model, search(cost, Budget(f"{budget:g}", budget, budget * dense, dense)).threshold_scale)
    return spread(run.counted(model, [batch], compute)["vision"].left - PINNED)


def deeper(shares: np.ndarray, blocks: int) -> np.ndarray:
    """Shares [images, some blocks] at the same depths of a tower of `blocks` blocks, [images, blocks]."""
    depths = np.linspace(0, 1, shares.shape[1] + 1)
    whole = np.concatenate([np.ones((len(shares), 1)), shares], 1)
    return np.array([np.interp(np.linspace(0, 1, blocks + 1)[1:], depths, image) for image in whole])


def planned(model: Prunable, dense: Counts, shares: np.ndarray, budget: float) -> np.ndarray:
    """Prunable tokens each image has left after each block, [blocks, samples, inputs], so that the budget is met.

    The shares are raised to one power for all, near 1 where the example spends its budget as this model does.

    Args:
        model: With a dictionary attached; says which blocks prune.
        dense: Counts of the batch's dense forward.
        shares: From `example_shares`; taken in turn where there are more images.
        budget: Share of the batch's dense multiply-adds.
    """
    whole = dense["vision"].entered - PINNED
    blocks, samples, inputs = whole.shape
    curves = deeper(shares, blocks)[np.arange(samples * inputs) % len(shares)].T.reshape(whole.shape)
    aim = budget * sample_costs.per_sample(model.config, dense).mean()
    low, high = 0.0, 50.0
    for _ in range(40):
        power = (low + high) / 2
        left = _whole_tokens(model, whole, curves**power)
        cost = sample_costs.per_sample(model.config, with_left(model, dense, left)).mean()
        low, high = (power, high) if cost > aim else (low, power)
    return _whole_tokens(model, whole, curves**high)


def series(model: Prunable, dense: Counts, shares: np.ndarray, budget: float, number: int) -> tuple[np.ndarray, ...]:
    """Plans for so many batches, each of other images of the example as far as there are enough."""
    images = dense["vision"].entered[0].size
    return tuple(planned(model, dense, np.roll(shares, -turn * (images + 1), 0), budget) for turn in range(number))


def _whole_tokens(model: Prunable, whole: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """One token at least, never more than entered, and all that entered where a block does not prune."""
    left = np.maximum(1, np.rint(whole * shares)).astype(np.int64)
    prunes = prunes_in(model)
    for block in range(len(left)):
        entered = left[block - 1] if block else whole[0]
        left[block] = np.minimum(left[block], entered) if prunes[block] else entered
    return left


def prunes_in(model: Prunable) -> list[bool]:
    """Which blocks of the image tower prune, at any knob above 0."""
    if model.pruning is None:
        raise ValueError("a dense model prunes nowhere")
    settings = replace(model.pruning, threshold_scale=1.0)
    return [bool(settings.rule("vision", block)) for block in range(model.blocks["vision"])]


def with_left(model: Prunable, dense: Counts, left: np.ndarray) -> dict[str, TokenCounts]:
    """The batch's counts if its images had these prunable tokens left."""
    tokens = left + PINNED
    entered = np.concatenate([dense["vision"].entered[:1], tokens[:-1]])
    return {**dense, "vision": TokenCounts(entered, tokens, np.array(prunes_in(model)))}


def padded(left: np.ndarray) -> np.ndarray:
    """What padding to the batch's maximum executes: all images have the most that one has."""
    return np.broadcast_to(left.max((1, 2), keepdims=True), left.shape)


def even(left: np.ndarray) -> np.ndarray:
    """The same tokens on average, without a spread."""
    return np.broadcast_to(np.rint(left.mean((1, 2), keepdims=True)).astype(np.int64), left.shape)


def over_mean(whole: np.ndarray, lefts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Tokens of padding to the batch's maximum over those that are there, [CLS] included.

    First those that are executed: a block's attention executes those that enter it, its feed-forward those that it
    leaves. Then those that blocks leave alone, as if it were not known that all enter the first attention.

    Args:
        whole: Prunable tokens of each image before the first block, [samples, inputs].
        lefts: After each block, [blocks, samples, inputs], of each batch that counts.
    """

    def executed(left: np.ndarray) -> np.ndarray:
        entering, leaving = np.concatenate([whole[None], left[:-1]]) + PINNED, left + PINNED
        return np.array([entering.sum() + leaving.sum(), leaving.sum()])

    most, there = (np.sum([executed(each(left)) for left in lefts], 0) for each in (padded, np.asarray))
    of_executed, of_left = (most / there).tolist()
    return of_executed, of_left


def spread(left: np.ndarray) -> list[tuple[float, ...]]:
    """Mean, least, most and standard deviation of each block's tokens per image, [CLS] included."""
    tokens = (left + PINNED).reshape(len(left), -1)
    return [(float(row.mean()), int(row.min()), int(row.max()), float(row.std())) for row in tokens]


class Imposed:
    """In place of `dynamic.above`: each image's best tokens by the real score, as many as planned."""

    def __init__(self, wanted: Sequence[int]) -> None:
        """Take the tokens to keep, image after image, block after block, as they are asked for."""
        self.wanted, self.asked = torch.tensor(wanted), 0

    def __call__(self, score: Tensor, threshold: Tensor, min_keep: int) -> Tensor:
        """Which cells of the padded score stay, bool; padding holds -1."""
        wanted = self.wanted[self.asked : self.asked + len(score)].to(score.device)
        self.asked += len(score)
        best = torch.arange(score.shape[1], device=score.device) < wanted[:, None]
        stays = torch.zeros_like(best).scatter(1, score.argsort(1, descending=True), best)
        return stays & (score >= 0)


@contextlib.contextmanager
def imposed(model: Prunable, left: np.ndarray) -> Iterator[None]:
    """One forward within this keeps so many tokens; scores, leaders and joins are computed as ever."""
    # Packed, a tower's first inputs of all samples come first (left images, then right ones).
    rows = [block.T.ravel() for block, prunes in zip(left, prunes_in(model), strict=True) if prunes]
    rule = Imposed(np.concatenate(rows).tolist())
    with mock.patch.object(dynamic, "above", rule):
        yield
    if rule.asked != len(rule.wanted):
        raise RuntimeError("the rule did not ask for each pruning block's images once; adapt examples/bench/counts.py")
