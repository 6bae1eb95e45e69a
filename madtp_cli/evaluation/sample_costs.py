"""The cost of samples: the FLOPs formula of a model's family and task, applied to token counts.

The formula of the family `blip` for the task `nlvr2` is in `models/blip/costs/nlvr2.py`. It has two functions:
`tokens(config, lengths)` gives the inputs of a dense forward pass by tower, and `costs(config, counts)` the cost of
each layer. A model that generates or ranks answers after its forward pass has two more names, see `GenerationFormula`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np

from madtp_cli import methods, models, processes
from madtp_cli.data import Row
from madtp_cli.data.pixels import image_size
from madtp_cli.evaluation import batching
from madtp_cli.evaluation.session import Session
from madtp_cli.execution.block_trace import TokenTrace
from madtp_cli.execution.text_runs import OnTextRun, TextRun
from madtp_cli.flops.counts import Counts, LayerCost, Lengths, TokenCounts
from madtp_cli.models.prunable import Prunable
from madtp_cli.tasks import Task


class Formula(Protocol):
    """The functions of a cost module."""

    def tokens(self, config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
        """Return, by tower, the tokens of a dense forward pass, [samples, inputs], and the number of blocks."""

    def costs(self, config: Any, counts: Counts) -> list[LayerCost]:
        """Return the cost of each layer per sample."""


class GenerationFormula(Formula, Protocol):
    """The functions of a cost module whose text tower runs again to find answers."""

    #: The tower whose last tokens the texts attend to.
    MEMORY: str

    def text_run(self, config: Any, run: TextRun, memory: np.ndarray) -> int:
        """Return the multiply-adds of one text run, all samples together.

        Args:
            config: The model's configuration.
            run: The text run.
            memory: Tokens of each sample that the texts attend to, [samples].
        """


def formula(config: Any) -> Formula:
    """Return the formula for a model's configuration."""
    return cast(Formula, importlib.import_module(models.costs_module(config)))


def generates(config: Any) -> bool:
    """Return whether a model runs its text tower again to find answers, see `GenerationFormula`."""
    return hasattr(formula(config), "text_run")


def costs(config: Any, counts: Counts) -> list[LayerCost]:
    """Return the cost of each layer per sample."""
    return formula(config).costs(config, counts)


def per_sample(config: Any, counts: Counts) -> np.ndarray:
    """Return the multiply-adds of each sample, [samples]."""
    return total(costs(config, counts))


def total(layers: list[LayerCost], tower: str | None = None) -> np.ndarray:
    """Return the multiply-adds per sample, [samples], of all layers or of the layers of one tower."""
    return np.sum([cost.flops for cost in layers if tower in (None, cost.tower)], axis=0)


def counts_of(model: Prunable, trace: TokenTrace) -> dict[str, TokenCounts]:
    """Return the token counts by tower of a forward pass, from its trace."""
    return {tower: TokenCounts.of(blocks, model.INPUTS_PER_SAMPLE.get(tower, 1)) for tower, blocks in trace.items()}


def dense_counts(config: Any, lengths: Lengths) -> dict[str, TokenCounts]:
    """Return the token counts of the dense model for samples with texts of these lengths."""
    inputs = formula(config).tokens(config, lengths)
    return {tower: TokenCounts.dense(tokens, blocks) for tower, (tokens, blocks) in inputs.items()}


def least_counts(model: Prunable, lengths: Lengths) -> dict[str, TokenCounts]:
    """Return the token counts at an infinite threshold scale: the lowest cost that the model can have."""
    settings = model.pruning
    if settings is None:
        raise ValueError("a dense model has no threshold scale")
    endless = replace(settings, threshold_scale=float("inf"))
    keep, share = settings.min_keep + methods.get(settings.method).MERGED_TOKENS, settings.parameters.LEAST_SHARE
    counts = {}
    dense_model = dense_counts(model.config, lengths)
    inputs = {tower: dense.entered[0] for tower, dense in dense_model.items()}
    for tower, dense in dense_model.items():
        own = model.SHARED_TOWERS.get(tower, tower)
        pruned = [own in model.TOWERS and bool(endless.rule(own, block)) for block in range(len(dense.entered))]
        protected = model.protected_tokens(own, inputs)
        tokens = dense.entered[0]
        if own == "vision" and methods.IMAGE in settings.needs:
            tokens = np.minimum(tokens, protected + 1)  # an image of one patch
        embedding = endless.embedding_rule(own) is not None
        counts[tower] = TokenCounts.least(tokens, np.array(pruned), protected, keep, share, embedding=embedding)
    return counts


def text_lengths(session: Session, split: str, limit: int | None = None) -> dict[str, list[Any]]:
    """Return the token counts of the rows of a split, see `lengths_of`."""
    rows = batching.rows(session, split, limit)
    return lengths_of(rows, session.task, session.processor, session.model.config)


def lengths_of(rows: Sequence[Row], task: Task, processor: Any, config: Any) -> dict[str, list[Any]]:
    """Return the tokens of each row's texts by tower, and of its images if they differ. No pixel is decoded."""
    lengths = task.text_lengths(rows, processor)
    of_image = models.family_of(config).image_lengths
    if of_image is None:
        return lengths
    sizes = [[image_size(image) for image in row.images] for row in rows]
    return {**lengths, "image": [[of_image(*size, config.vision_config) for size in of_row] for of_row in sizes]}


def dense_gflops(session: Session, split: str, limit: int | None = None) -> np.ndarray:
    """Return the GFLOPs of each sample in the dense model, [samples], by the formula without a forward pass."""
    counts = dense_counts(session.model.config, text_lengths(session, split, limit))
    return per_sample(session.model.config, counts) / 1e9


def floor_gflops(session: Session, model: Prunable, split: str, limit: int | None = None) -> float:
    """Return the mean GFLOPs per sample at an infinite threshold scale: the lowest budget that can be met."""
    counts = least_counts(model, text_lengths(session, split, limit))
    return float(per_sample(model.config, counts).mean()) / 1e9


@dataclass
class GenerationCost:
    """The multiply-adds of the text runs of all samples: as they ran, and the same runs without pruning.

    Attributes:
        config: The model's configuration.
        total: Multiply-adds of the text runs.
        dense: Multiply-adds of the same text runs if nothing were pruned.
    """

    config: Any
    total: int = field(default=0, init=False)
    dense: int = field(default=0, init=False)

    def add_processes(self) -> None:
        """Add the text runs of the other processes."""
        self.total, self.dense = processes.total(self.total), processes.total(self.dense)

    def recorder(self, counts: Counts) -> OnTextRun:
        """Return a function that adds the cost of each text run.

        Args:
            counts: Token counts of the samples; a text run refers to samples by their position in it.
        """

        def record(text_run: TextRun) -> None:
            generation = cast(GenerationFormula, formula(self.config))
            memory, samples = counts[generation.MEMORY], list(text_run.samples)
            self.total += generation.text_run(self.config, text_run, memory.left[-1][samples, 0])
            self.dense += generation.text_run(self.config, text_run.unpruned(), memory.entered[0][samples, 0])

        return record
