"""What samples cost: the FLOPs formula of a model's family and task, applied to token counts.

A model of the family `blip` for the task `nlvr2` has its formula in `models/blip/costs/nlvr2.py`, with two functions:
`tokens(config, lengths)`, the inputs of a dense forward by tower, and `costs(config, counts)`, its layers. A model
that generates or ranks answers after its forward has two names more, see `GenerationFormula`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np

from madtp_cli import methods, models
from madtp_cli.execution.block_pruner import TokenTrace
from madtp_cli.execution.text_runs import OnTextRun, TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths, TokenCounts
from madtp_cli.models.prunable import Prunable


class Formula(Protocol):
    """A file of this package."""

    def tokens(self, config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
        """By tower: tokens of a dense forward's inputs, [samples, inputs], and the tower's blocks."""

    def costs(self, config: Any, counts: Counts) -> list[LayerCost]:
        """Cost of each layer per sample."""


class GenerationFormula(Formula, Protocol):
    """A file of a kind whose text tower runs again to find answers."""

    #: The tower whose last tokens the texts look at.
    MEMORY: str

    def text_run(self, config: Any, run: TextRun, memory: np.ndarray) -> int:
        """Return the multiply-adds of one run; `memory` [samples] are the tokens that the texts attend to."""


def formula(config: Any) -> Formula:
    """The formula of a configuration's kind of model."""
    return cast(Formula, importlib.import_module(models.costs_module(config)))


def searches(config: Any) -> bool:
    """Whether a kind of model goes on to search for answers, as `Searching` says."""
    return hasattr(formula(config), "text_run")


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Cost of each layer per sample."""
    return formula(config).costs(config, counts)


def per_sample(config: Any, counts: Counts) -> np.ndarray:
    """Multiply-adds of each sample, [samples]."""
    return total(costs(config, counts))


def total(layers: list[LayerCost], tower: str | None = None) -> np.ndarray:
    """Multiply-adds per sample, [samples], of all layers or of one tower's."""
    return np.sum([cost.flops for cost in layers if tower in (None, cost.tower)], axis=0)


def counts_of(model: Prunable, trace: TokenTrace) -> dict[str, TokenCounts]:
    """Token counts by tower from a forward's trace."""
    return {tower: TokenCounts.of(blocks, model.INPUTS_PER_SAMPLE.get(tower, 1)) for tower, blocks in trace.items()}


def dense_counts(config: Any, lengths: Lengths) -> dict[str, TokenCounts]:
    """Counts of the dense model for samples with texts of these lengths."""
    inputs = formula(config).tokens(config, lengths)
    return {tower: TokenCounts.dense(tokens, blocks) for tower, (tokens, blocks) in inputs.items()}


def least_counts(model: Prunable, lengths: Lengths) -> dict[str, TokenCounts]:
    """Counts of a model with a dictionary at a knob of infinity, the floor of its cost."""
    settings = model.pruning
    if settings is None:
        raise ValueError("a dense model has no knob")
    endless = replace(settings, threshold_scale=float("inf"))
    keep = settings.min_keep + methods.get(settings.method).MERGED_TOKENS
    counts = {}
    for tower, dense in dense_counts(model.config, lengths).items():
        own = model.SHARED_TOWERS.get(tower, tower)
        pruned = [own in model.TOWERS and bool(endless.rule(own, block)) for block in range(len(dense.entered))]
        protected = model.PROTECTED.get(own, 1)
        counts[tower] = TokenCounts.least(dense.entered[0], np.array(pruned), protected + keep)
    return counts


@dataclass
class GenerationCost:
    """Multiply-adds of finding answers, beside the forward, of all samples: `own`, and the same runs unpruned."""

    config: Any
    own: int = field(default=0, init=False)
    dense: int = field(default=0, init=False)

    def about(self, counts: Counts) -> OnTextRun:
        """To be told of the runs that look at these samples, numbered as in `counts`."""

        def hear(read: TextRun) -> None:
            searching = cast(GenerationFormula, formula(self.config))
            memory, samples = counts[searching.MEMORY], list(read.samples)
            self.own += searching.text_run(self.config, read, memory.left[-1][samples, 0])
            self.dense += searching.text_run(self.config, read.unpruned(), memory.entered[0][samples, 0])

        return hear
