"""Run a model over samples: what it answers and how many tokens it kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from madtp_cli.data import Row
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import sample_costs
from madtp_cli.flops.counts import Counts, TokenCounts
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.schema import GenerationCostPart, LayerPart
from madtp_cli.tasks import Task, TaskResult

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class ComputeConfig:
    """Where and in which number format to compute."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str, dtype: str) -> ComputeConfig:
        """From the settings; "auto" takes CUDA if there is one, and float32.

        Raises:
            UsageError: There is no such device here.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"--device {device} cannot be used here: {reason}\nUse --device cpu.") from error
        return cls(torch.device(device), torch.float32 if dtype == "auto" else getattr(torch, dtype))

    def moved(self, batch: Batch) -> Batch:
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Forwards in the number format; weights stay as they are.

        Where weights are trained, one for each step: until it ends autocast takes them for what they were.
        """
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @contextlib.contextmanager
    def inference(self, *models: nn.Module) -> Iterator[None]:
        """Forwards without gradients in the number format.

        The models' matrices are cast once, not in each forward, whose cost would not fall with its tokens. What
        autocast makes of them stays the same; of convolutions transformers takes the format of all that follows.
        """
        layers = [layer for model in models for layer in model.modules() if isinstance(layer, nn.Linear)]
        kept = {own: own.data for layer in layers for own in layer.parameters(recurse=False)}
        kept = {own: data for own, data in kept.items() if data.dtype == torch.float32 != self.dtype}
        try:
            for own, data in kept.items():
                own.data = data.to(self.dtype)
            with torch.inference_mode(), self.precision():
                yield
        finally:
            for own, data in kept.items():
                own.data = data


@dataclass(frozen=True)
class Measured:
    """One pass: what was answered and how right that was, token counts, and what finding the answers cost beside."""

    result: TaskResult
    counts: Counts
    search: sample_costs.GenerationCost

    @property
    def samples(self) -> int:
        """How many there were; a task may answer and score more than one thing of each."""
        return int(next(iter(self.counts.values())).entered.shape[1])

    @property
    def answers(self) -> list[Any]:
        """Of each sample."""
        return self.result.answers

    @property
    def scores(self) -> list[float]:
        """Of whatever the task scores; empty where there were no labels."""
        return self.result.scores

    def gflops(self, model: Prunable) -> np.ndarray:
        """Cost of each sample, [samples]."""
        return sample_costs.per_sample(model.config, self.counts) / 1e9


def inputs_of(batch: Batch) -> Batch:
    """What of a batch are arguments of the forward, without labels."""
    return {name: value for name, value in batch.items() if name != "labels" and "." not in name}


def run(
    model: Prunable,
    batches: Iterable[Batch],
    task: Task,
    compute: ComputeConfig,
    rows: Sequence[Row] = (),
    tick: Callable[[int], None] = lambda samples: None,
) -> Measured:
    """Evaluate once over the batches of some rows, without gradients; `tick` hears how many samples are done.

    Without `rows` nothing is scored: the answers alone count.
    """
    predictions: list[Any] = []
    counts: list[Counts] = []
    search = sample_costs.GenerationCost(model.config)
    with compute.inference(model):
        for batch in map(compute.moved, batches):
            output = model(**inputs_of(batch))
            counts.append(sample_costs.counts_of(model, output.trace))
            predictions += task.predictions(model, output, batch, search.about(counts[-1]))
            tick(len(predictions))
        joined = _joined(counts)
        result = task.score(model, predictions, rows, search.about(joined))
    return Measured(result, joined, search)


def answering(
    task: Task, model: Prunable, measured: Measured, before: Measured | None = None
) -> GenerationCostPart | None:
    """What finding the answers cost beside the forwards; None where that is nothing.

    Args:
        task: Says what was run.
        model: The one that was measured.
        measured: Its pass.
        before: The dense model's own pass; if None, its figure is that of the same runs on unpruned tokens.
    """
    search, answers = measured.search, len(measured.answers)
    if not search.own:
        return None
    dense = search.dense if before is None else before.search.own
    return GenerationCostPart(
        description=task.answering,
        answers=answers,
        dense=dense / answers / 1e9,
        pruned=search.own / answers / 1e9 if model.pruning else None,
        share=search.own / dense if model.pruning else None,
    )


def counted(model: Prunable, batches: Iterable[Batch], compute: ComputeConfig) -> Counts:
    """Token counts over the batches; nothing is answered."""
    with compute.inference(model):
        return _joined(
            [sample_costs.counts_of(model, model(**inputs_of(compute.moved(batch))).trace) for batch in batches]
        )


def _joined(counts: Sequence[Counts]) -> Counts:
    return {tower: TokenCounts.joined([part[tower] for part in counts]) for tower in counts[0]}


def set_threshold_scale(model: Prunable, threshold_scale: float) -> None:
    """Prune with this knob from now on."""
    if model.pruning is None:
        raise ValueError("the model has no dictionary; attach one first")
    model.attach(replace(model.pruning, threshold_scale=threshold_scale))


def mean_gflops(model: Prunable, batches: Iterable[Batch], compute: ComputeConfig) -> float:
    """Mean cost per sample of the model as it is set."""
    return float(sample_costs.per_sample(model.config, counted(model, batches, compute)).mean()) / 1e9


def by_tower(layers: Sequence[LayerPart]) -> dict[str, float]:
    """GFLOPs of each tower."""
    towers = dict.fromkeys([layer.tower for layer in layers], 0.0)
    for layer in layers:
        towers[layer.tower] += layer.gflops
    return towers


def layer_parts(model: Prunable, counts: Counts) -> list[LayerPart]:
    """Every layer's cost and, where it is a block, its tokens per input over the samples."""
    parts = []
    blocks = dict.fromkeys(counts, 0)
    for cost in sample_costs.costs(model.config, counts):
        tokens: dict[str, float] = {}
        if cost.name.startswith("layer"):
            block, tower = blocks[cost.tower], counts[cost.tower]
            blocks[cost.tower] += 1
            left = tower.left[block].ravel()
            tokens = {
                "tokens_in": float(tower.entered[block].mean()),
                "tokens_out": float(left.mean()),
                "tokens_out_p5": float(np.percentile(left, 5)),
                "tokens_out_p95": float(np.percentile(left, 95)),
            }
        parts.append(LayerPart(tower=cost.tower, layer=cost.name, gflops=float(cost.flops.mean()) / 1e9, **tokens))
    return parts
