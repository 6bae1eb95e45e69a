"""Parts of a report that are computed from token counts: layers, towers and the generation cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from madtp_cli.evaluation import baselines, batching, number_formats, sample_costs
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.evaluation.run import Measured
from madtp_cli.evaluation.session import Session
from madtp_cli.flops.counts import Counts
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.run_parts import SetBudgetPart
from madtp_cli.reporting.schema import AGREEMENT, ComputePart, Environment, GenerationCostPart, LayerPart, TrainingPoint
from madtp_cli.tasks import Task

#: Steps of a fine-tune that a report lists at most.
MOST_TRAINING_POINTS = 200


def environment(device: torch.device | str = "cpu") -> Environment:
    """Describe the versions, the processor, and the number formats that are fast on the device of a run."""
    return Environment.here(number_formats.cpu(), number_formats.fast_formats(device))


def compute_part(compute: ComputeConfig) -> ComputePart:
    """Describe where and in which number format a run computes."""
    return ComputePart(device=str(compute.device), dtype=str(compute.dtype).removeprefix("torch."))


def set_budget_part(session: Session) -> SetBudgetPart | None:
    """Describe the budget that the settings have set without training; None if they have not."""
    request, pruning = getattr(session.settings, "gflops_budget", None), session.model.pruning
    if request is None or pruning is None:
        return None
    return SetBudgetPart(requested=request.text, threshold_scale=pruning.threshold_scale)


def conditions(session: Session) -> dict[str, object]:
    """Return what the figures of a run will depend on, as `baselines.conditions` does for a report."""
    split, here = session.settings.split, environment(session.compute.device)
    return {
        "task": session.task.name,
        "data": Path(session.data.source).name,
        "metric": session.task.metric if session.labelled else AGREEMENT,
        "split": split,
        "samples": len(batching.rows(session, split)),
        **compute_part(session.compute).model_dump(),
        **{library: getattr(here, library) for library in baselines.LIBRARIES},
    }


def generation_part(
    task: Task, model: Prunable, measured: Measured, dense: Measured | None = None
) -> GenerationCostPart | None:
    """Return the cost of generating, ranking or re-ranking answers, in addition to the forward passes.

    Args:
        task: Describes what was run.
        model: The measured model.
        measured: The run of that model.
        dense: The run of the dense model. If None, the dense figure is the cost of the same text runs without pruning.

    Returns:
        None if the answers cost nothing beyond the forward passes.
    """
    cost, answers = measured.generation, len(measured.answers)
    if not cost.total:
        return None
    dense_total = cost.dense if dense is None else dense.generation.total
    return GenerationCostPart(
        description=task.generation_cost_description,
        answers=answers,
        dense=dense_total / answers / 1e9,
        pruned=cost.total / answers / 1e9 if model.pruning else None,
        share=cost.total / dense_total if model.pruning else None,
    )


def thinned(points: Sequence[TrainingPoint]) -> list[TrainingPoint]:
    """Return at most `MOST_TRAINING_POINTS` steps of a fine-tune, at equal distances; the last one is there."""
    every = math.ceil(len(points) / MOST_TRAINING_POINTS)
    return list(points[::-1][:: max(1, every)][::-1])


def by_tower(layers: Sequence[LayerPart]) -> dict[str, float]:
    """Return the GFLOPs of each tower."""
    towers = dict.fromkeys([layer.tower for layer in layers], 0.0)
    for layer in layers:
        towers[layer.tower] += layer.gflops
    return towers


def layer_parts(model: Prunable, counts: Counts) -> list[LayerPart]:
    """Return the mean GFLOPs of each layer and, for blocks, the tokens per input that enter and leave it."""
    parts = []
    next_block = dict.fromkeys(counts, 0)
    for cost in sample_costs.costs(model.config, counts):
        tokens: dict[str, float] = {}
        if cost.name.startswith("layer"):
            tokens = _tokens(counts, cost.tower, next_block[cost.tower])
            next_block[cost.tower] += 1
        parts.append(LayerPart(tower=cost.tower, layer=cost.name, gflops=float(cost.flops.mean()) / 1e9, **tokens))
    return parts


def _tokens(counts: Counts, tower: str, block: int) -> dict[str, float]:
    left = counts[tower].left[block].ravel()
    return {
        "tokens_in": float(counts[tower].entered[block].mean()),
        "tokens_out": float(left.mean()),
        "tokens_out_p5": float(np.percentile(left, 5)),
        "tokens_out_p95": float(np.percentile(left, 95)),
    }
