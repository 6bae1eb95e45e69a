"""Which tokens stay: one method a file with what `Method` names, chosen by --method."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from madtp_cli.errors import UsageError
from madtp_cli.pruning import segments
from madtp_cli.pruning.merging import PruneDecision
from madtp_cli.pruning.padded import PaddedBlockInputs, PaddedPruneDecision

__all__ = ["Attended", "Kept", "Method", "Placed", "Preset", "Rule", "Seen", "get", "keep_each", "names", "pruned_by"]


@dataclass(frozen=True)
class BlockInputs:
    """What a method sees of one block: a tower's tokens after self-attention, packed, and which it may prune.

    `tokens` [all, width], pinned ones included, of which `rows` [total] are prunable; `lengths` says how many of
    these each sample has; `class_attention` and `self_attention` [total], each non-negative
    and summing to one over a sample; `logits` [total, atoms] against the dictionary.
    """

    tokens: Tensor
    rows: Tensor
    lengths: Sequence[int]
    class_attention: Tensor
    self_attention: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Rule:
    """How hard to prune in one block.

    `knob` is 0 or more; `temperature` sharpens the dictionary's attention below 1;
    `min_keep` tokens stay per sample and tower.
    """

    threshold_scale: float
    temperature: float = 1.0
    min_keep: int = 1


@dataclass(frozen=True)
class Preset:
    """What suits a method unless told: see `models.encoder.PruningSettings`.

    `unpruned` names towers that are left alone; the others are pruned in the first block and then in `every` so many.
    """

    proportional: bool
    temperature: float = 1.0
    queries: int = 0
    every: int = 1
    unpruned: tuple[str, ...] = ()

    def scales(self, tower: str, blocks: int) -> list[float]:
        """By what each of a tower's blocks multiplies the knob: 1 or 0.

        >>> Preset(proportional=True, every=2).scales("vision", 3)
        [1.0, 0.0, 1.0]
        """
        return [float(tower not in self.unpruned and block % self.every == 0) for block in range(blocks)]


class Method(Protocol):
    """A module of this package."""

    PRESET: Preset
    #: Tokens made of those that went, beside those that stay.
    MERGED_TOKENS: int

    def keep(self, attended: BlockInputs, rule: Rule) -> PruneDecision:
        """Choose the tokens that go on to the feed-forward."""

    def place(self, seen: PaddedBlockInputs, rule: Rule) -> PaddedPruneDecision:
        """The same choice on a padded block, as exporters need it."""

    def cost(self, tokens: np.ndarray, width: int, atoms: int) -> np.ndarray:
        """Multiply-adds of `keep` for samples of so many prunable tokens; the dictionary's logits are given."""


def pruned_by(prune: Callable[..., PruneDecision], attended: BlockInputs, rule: Rule, **more: Tensor) -> PruneDecision:
    """What a function of `pruning.dynamic` makes of a block, given `more` than the scores."""
    return prune(
        attended.lengths,
        (attended.class_attention, attended.self_attention),
        attended.logits,
        rule.threshold_scale,
        temperature=rule.temperature,
        min_keep=rule.min_keep,
        **more,
    )


def keep_each(method: Method, attended: BlockInputs, rule: Rule) -> PruneDecision:
    """The same as `method.keep`, sample by sample: slower, but no multiply-add is spent on padding."""
    first = segments.offsets(attended.lengths)
    of_prunable = [f.name for f in fields(attended) if f.name not in ("tokens", "lengths")]
    parts = []
    for sample, length in enumerate(attended.lengths):
        own = slice(first[sample], first[sample + 1])
        parts.append(
            method.keep(
                replace(attended, lengths=[length], **{name: getattr(attended, name)[own] for name in of_prunable}),
                rule,
            )
        )
    lengths = [length for part in parts for length in part.lengths]
    place = segments.offsets(lengths)
    positions = [torch.where(part.positions >= 0, part.positions + first[at], -1) for at, part in enumerate(parts)]
    places = [part.places + place[at] for at, part in enumerate(parts)]
    return PruneDecision(lengths, torch.cat(positions), torch.cat(places), torch.cat([part.shares for part in parts]))


def names() -> list[str]:
    """Names for --method: the files of this folder."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Method:
    """The method of that name; UsageError lists those there are."""
    if name not in names():
        raise UsageError(f"There is no method {name!r}. Choose one of: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
