"""What a forward costs: closed formulas on token counts; `witness` lets fvcore count the same.

Literature's convention, which is fvcore's: one multiply-add counts once, a layer norm five
per element; softmax, activations, additions and look-ups count nothing. The dictionary and
the method's own products are part of a pruned model's cost; taking the attention statistics
needs no multiply-add beyond attention's own.

Each kind of model is a file, named as in `models`, with two functions: `tokens(config, lengths)`, the
inputs of a dense forward by tower, and `costs(config, counts)`, its layers. A kind that goes on to search for
answers has two names more, see `Searching`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import numpy as np

from madtp_cli import methods, models
from madtp_cli.models.encoder import PINNED, BlockTrace, TokenTrace
from madtp_cli.models.prunable import Prunable
from madtp_cli.models.reading import Hear, Reading

CONVENTION = "multiply-adds (fvcore convention)"
#: Tokens of the text inputs of each sample, by tower; images have their size.
Lengths = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of every sample through every block of one tower.

    `entered` and `left` are [blocks, samples, inputs]: an NLVR2 sample has two images and one
    sentence. `scored` [blocks] says where pruning was tried, for trying costs too.
    """

    entered: np.ndarray
    left: np.ndarray
    scored: np.ndarray

    @classmethod
    def of(cls, blocks: list[BlockTrace], inputs: int) -> TokenCounts:
        """From a forward's record; inputs of one kind lie together ([left images, right images])."""
        entered, left = (
            np.array(counts).reshape(len(blocks), inputs, -1).transpose(0, 2, 1)
            for counts in ([block.entered for block in blocks], [block.left for block in blocks])
        )
        return cls(entered, left, np.array([block.scored for block in blocks]))

    @classmethod
    def dense(cls, tokens: np.ndarray, blocks: int) -> TokenCounts:
        """All `tokens` [samples, inputs] through all blocks."""
        counts = np.broadcast_to(tokens, (blocks, *tokens.shape))
        return cls(counts, counts, np.zeros(blocks, bool))

    @classmethod
    def least(cls, tokens: np.ndarray, pruned: np.ndarray, keep: int) -> TokenCounts:
        """At a knob of infinity: each block with `pruned` [blocks] leaves `keep` tokens, the pinned ones included."""
        entered, left, current = [], [], tokens
        for prunes in pruned:
            entered.append(current)
            current = np.minimum(current, keep) if prunes else current
            left.append(current)
        return cls(np.array(entered), np.array(left), pruned)

    @classmethod
    def joined(cls, parts: list[TokenCounts]) -> TokenCounts:
        """Samples of several batches."""
        entered, left = (np.concatenate([getattr(part, name) for part in parts], 1) for name in ("entered", "left"))
        return cls(entered, left, parts[0].scored)


#: Token counts by tower.
Counts = Mapping[str, TokenCounts]


@dataclass(frozen=True)
class LayerCost:
    """Multiply-adds of one layer, [samples]; blocks are named "layer 0", "layer 1" ..."""

    tower: str
    name: str
    flops: np.ndarray


class Formula(Protocol):
    """A file of this package."""

    def tokens(self, config: Any, lengths: Lengths) -> dict[str, tuple[np.ndarray, int]]:
        """By tower: tokens of a dense forward's inputs, [samples, inputs], and the tower's blocks."""

    def costs(self, config: Any, counts: Counts) -> list[LayerCost]:
        """Cost of each layer per sample."""


class Searching(Formula, Protocol):
    """A file of a kind whose text tower runs again to find answers."""

    #: The tower whose last tokens the texts look at.
    MEMORY: str

    def reading(self, config: Any, read: Reading, seen: np.ndarray) -> int:
        """Multiply-adds of one run, all its samples together; `seen` [samples] are the tokens looked at."""


def formula(config: Any) -> Formula:
    """The formula of a configuration's kind of model."""
    return cast(Formula, importlib.import_module(f"{__name__}.{models.kind_of(config)}"))


def searches(config: Any) -> bool:
    """Whether a kind of model goes on to search for answers, as `Searching` says."""
    return hasattr(formula(config), "reading")


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
    return {tower: TokenCounts.of(blocks, model.INPUTS.get(tower, 1)) for tower, blocks in trace.items()}


def dense_counts(config: Any, lengths: Lengths) -> dict[str, TokenCounts]:
    """Counts of the dense model for samples with texts of these lengths."""
    inputs = formula(config).tokens(config, lengths)
    return {tower: TokenCounts.dense(tokens, blocks) for tower, (tokens, blocks) in inputs.items()}


def least_counts(model: Prunable, lengths: Lengths) -> dict[str, TokenCounts]:
    """Counts of a model with a dictionary at a knob of infinity, the floor of its cost."""
    settings = model.pruning
    if settings is None:
        raise ValueError("a dense model has no knob")
    endless = replace(settings, knob=float("inf"))
    keep = settings.min_keep + methods.get(settings.method).MERGED_TOKENS
    counts = {}
    for tower, dense in dense_counts(model.config, lengths).items():
        own = model.AGAIN.get(tower, tower)
        pruned = [own in model.TOWERS and bool(endless.rule(own, block)) for block in range(len(dense.entered))]
        pins = model.PINS.get(own, PINNED)
        counts[tower] = TokenCounts.least(dense.entered[0], np.array(pruned), pins.leading + pins.trailing + keep)
    return counts


@dataclass
class Search:
    """Multiply-adds of finding answers, beside the forward, of all samples: `own`, and the same runs unpruned."""

    config: Any
    own: int = field(default=0, init=False)
    dense: int = field(default=0, init=False)

    def about(self, counts: Counts) -> Hear:
        """To be told of the runs that look at these samples, numbered as in `counts`."""

        def hear(read: Reading) -> None:
            searching = cast(Searching, formula(self.config))
            memory, samples = counts[searching.MEMORY], list(read.samples)
            self.own += searching.reading(self.config, read, memory.left[-1][samples, 0])
            self.dense += searching.reading(self.config, read.unpruned(), memory.entered[0][samples, 0])

        return hear
