"""How many tokens each image of a benchmark keeps, and how a model is made to keep exactly so many.

A model with random weights does not choose tokens like a trained model. Therefore the token counts come from the
trained `examples/blip.pt`, calibrated to the same budget without fine-tuning. Each image of the benchmark keeps the
same share of its tokens, at the same relative depth, as one image of the example. So the spread between images is
that of trained weights too.

A plan has one more stage than the image tower has blocks. The first stage is the tokens that are left before the first
block: its self-attention processes them. The other stages are the tokens that are left after each block.
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
from madtp_cli.compression import calibration, threshold_search
from madtp_cli.compression.budget import Budget, feasible_budget
from madtp_cli.compression.student import prunable_student
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.compute import Batch, ComputeConfig
from madtp_cli.evaluation.session import Session
from madtp_cli.flops.counts import Counts, TokenCounts
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter
from madtp_cli.pruning import thresholds

#: Protected tokens of an image: [CLS].
PROTECTED = 1
#: Steps of the search for the power in `plan`, and its upper end.
SEARCH_STEPS, LARGEST_POWER = 40, 50.0
#: Mean, minimum, maximum and standard deviation of the tokens per image, for each stage.
TokenStatistics = list[tuple[float, ...]]


def example_shares(source: Path, budget: float, pairs: int) -> np.ndarray:
    """Return the share of its prunable tokens that each image of an example has at each stage.

    Args:
        source: The example checkpoint.
        budget: Share of the dense GFLOPs.
        pairs: Validation pairs to run.

    Returns:
        Shares between 0 and 1, [images, stages].
    """
    settings = config.resolve({"gflops_budget": str(budget), "limit": pairs}, None, {})
    session = Session.open(source, settings, ProgressReporter())
    torch.manual_seed(settings.seed)
    student = prunable_student(session.model, settings.method)
    calibration.calibrate(session, student, feasible_budget(session, student, settings.gflops_budget), None)
    images = run.run_split(session, student, "val").counts["vision"]
    shares = stages(images) / (images.entered[0] - PROTECTED)
    return shares.reshape(len(shares), -1).T


def stages(images: TokenCounts) -> np.ndarray:
    """Return the prunable tokens of images at each stage, [stages, samples, images per sample]."""
    return np.concatenate([images.attended[:1], images.left]) - PROTECTED


def statistics_of_the_rule(model: Prunable, batch: Batch, compute: ComputeConfig, budget: float) -> TokenStatistics:
    """Return the token statistics if the pruning rule itself decides, calibrated to the budget on this batch."""
    run.set_threshold_scale(model, 0.0)
    dense = run.mean_gflops(model, [batch], compute)

    def cost(threshold_scale: float) -> float:
        run.set_threshold_scale(model, threshold_scale)
        return run.mean_gflops(model, [batch], compute)

    result = threshold_search.search(cost, Budget(f"{budget:g}", budget, budget * dense, dense))
    run.set_threshold_scale(model, result.threshold_scale)
    return token_statistics(stages(run.counted(model, [batch], compute)["vision"]))


def at_depths(shares: np.ndarray, blocks: int) -> np.ndarray:
    """Interpolate shares [images, some stages] to the relative depths of `blocks` blocks, [images, 1 + blocks]."""
    depths = np.linspace(0, 1, shares.shape[1])
    return np.array([np.interp(np.linspace(0, 1, 1 + blocks), depths, image) for image in shares])


def plan(model: Prunable, dense: Counts, shares: np.ndarray, budget: float) -> np.ndarray:
    """Return how many prunable tokens each image has at each stage so that the batch meets a budget.

    All shares are raised to the same power, which is found by bisection.

    Args:
        model: Model with a dictionary; its settings state at which stages it prunes.
        dense: Token counts of the dense forward pass of the batch.
        shares: From `example_shares`; they repeat if the batch has more images.
        budget: Share of the dense multiply-adds of the batch.

    Returns:
        Tokens, [stages, samples, images per sample].
    """
    before = stages(dense["vision"])
    number, samples, inputs = before.shape
    curves = at_depths(shares, number - 1)[np.arange(samples * inputs) % len(shares)].T.reshape(before.shape)
    target = budget * sample_costs.per_sample(model.config, dense).mean()
    low, high = 0.0, LARGEST_POWER
    for _ in range(SEARCH_STEPS):
        power = (low + high) / 2
        left = _whole_tokens(model, before, curves**power)
        cost = sample_costs.per_sample(model.config, planned_counts(model, dense, left)).mean()
        low, high = (power, high) if cost > target else (low, power)
    return _whole_tokens(model, before, curves**high)


def plans(model: Prunable, dense: Counts, shares: np.ndarray, budget: float, number: int) -> tuple[np.ndarray, ...]:
    """Return `number` plans; each takes its shares from other images of the example, as far as there are enough."""
    images = dense["vision"].entered[0].size
    return tuple(plan(model, dense, np.roll(shares, -turn * (images + 1), 0), budget) for turn in range(number))


def _whole_tokens(model: Prunable, before: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Round to at least one token and at most those of the stage before; a stage that does not prune keeps all."""
    left = np.maximum(1, np.rint(before * shares)).astype(np.int64)
    entered = before[0]
    for stage, prunes in enumerate(pruning_stages(model)):
        left[stage] = entered = np.minimum(left[stage], entered) if prunes else entered
    return left


def pruning_stages(model: Prunable) -> list[bool]:
    """Return for each stage of the image tower whether it prunes at a threshold scale above 0.

    Raises:
        ValueError: The model has no dictionary.
    """
    if model.pruning is None:
        raise ValueError("The model has no pruning settings. Attach a dictionary first.")
    settings = replace(model.pruning, threshold_scale=1.0)
    rules = [settings.embedding_rule("vision")]
    rules += [settings.rule("vision", block) for block in range(model.blocks["vision"])]
    return [rule is not None for rule in rules]


def planned_counts(model: Prunable, dense: Counts, left: np.ndarray) -> dict[str, TokenCounts]:
    """Return the token counts of the batch if its images keep the planned tokens."""
    tokens, (embedding, *blocks) = left + PROTECTED, pruning_stages(model)
    entered = np.concatenate([dense["vision"].entered[:1], tokens[1:-1]])
    embedded = tokens[0] if embedding else None
    return {**dense, "vision": TokenCounts(entered, tokens[1:], np.array(blocks), embedded)}


def padded_plan(left: np.ndarray) -> np.ndarray:
    """Return a plan in which every image has as many tokens as the image with the most, as padding would have."""
    return np.broadcast_to(left.max((1, 2), keepdims=True), left.shape)


def uniform_plan(left: np.ndarray) -> np.ndarray:
    """Return a plan in which every image has the mean number of tokens."""
    return np.broadcast_to(np.rint(left.mean((1, 2), keepdims=True)).astype(np.int64), left.shape)


def padding_ratios(lefts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the tokens of padded execution divided by the tokens of packed execution, [CLS] included.

    Args:
        lefts: Plans [stages, samples, inputs], one per batch.

    Returns:
        The ratio of executed tokens: the attention of a block processes the tokens that enter it, its feed-forward
        the tokens that leave it. Then the ratio of the tokens that leave the blocks.
    """

    def tokens(left: np.ndarray) -> np.ndarray:
        entering, leaving = left[:-1] + PROTECTED, left[1:] + PROTECTED
        return np.array([entering.sum() + leaving.sum(), leaving.sum()])

    padded = np.sum([tokens(padded_plan(left)) for left in lefts], 0)
    packed = np.sum([tokens(left) for left in lefts], 0)
    executed, leaving = (padded / packed).tolist()
    return executed, leaving


def token_statistics(left: np.ndarray) -> TokenStatistics:
    """Return mean, minimum, maximum and standard deviation of the tokens per image for each stage, with [CLS]."""
    tokens = (left + PROTECTED).reshape(len(left), -1)
    return [(float(row.mean()), int(row.min()), int(row.max()), float(row.std())) for row in tokens]


class PlannedSelection:
    """Replaces `thresholds.keep_above`: keeps a planned number of tokens instead of the tokens above a threshold."""

    def __init__(self, planned: Sequence[int]) -> None:
        """Take the number of tokens of each image, stage after stage, without the stages that do not prune."""
        self.planned, self.used = torch.tensor(planned), 0

    def __call__(self, score: Tensor, threshold: Tensor, mask: Tensor, min_keep: int) -> Tensor:
        """Return which tokens are kept, bool [images, longest]; the arguments are those of `keep_above`."""
        planned = self.planned[self.used : self.used + len(score)].to(score.device)
        self.used += len(score)
        best = torch.arange(score.shape[1], device=score.device) < planned[:, None]
        order = score.masked_fill(~mask, -1.0).argsort(1, descending=True)
        return torch.zeros_like(best).scatter(1, order, best) & mask


@contextlib.contextmanager
def follow_plan(model: Prunable, left: np.ndarray) -> Iterator[None]:
    """Make one forward pass keep the planned tokens; scores, distances and merging are computed as usual.

    Raises:
        RuntimeError: The forward pass did not select tokens exactly once at each stage that prunes.
    """
    # In a packed tensor the first images of all samples come first, then the second ones (left and right images).
    planned = [stage.T.ravel() for stage, prunes in zip(left, pruning_stages(model), strict=True) if prunes]
    selection = PlannedSelection(np.concatenate(planned).tolist())
    with mock.patch.object(thresholds, "keep_above", selection):
        yield
    if selection.used != len(selection.planned):
        raise RuntimeError(
            f"The model selected tokens for {selection.used} of {len(selection.planned)} planned images.\n"
            "Adapt PlannedSelection in examples/bench/token_plans.py to the pruning rule."
        )
