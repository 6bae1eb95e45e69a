"""Pruning inside a block, between attention and feed-forward, on packed tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from madtp_cli import methods
from madtp_cli.execution.attention import Attention, Backend
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.statistics import Statistics
from madtp_cli.pruning import importance, mag, merging, segments

#: Tokens a model reads its answer from are never scored, pruned or merged: here vision [CLS], text [ENC].
PINNED = Statistics(leading=1)
#: Of each sample, in this order: leading pinned, prunable and trailing pinned tokens.
LEADING, PRUNABLE, TRAILING = range(3)


@dataclass(frozen=True)
class PruningSettings:
    """How a model prunes; saved as `madtp` in its config.

    `knob` is the budget knob s (0 = dense); `scales` multiplies it per tower and block, so
    that 0 leaves a block alone; `proportional` lets a token be attended to as often as it stands for
    others; `queries` of each sample say which keys are attended to, all where 0; the rest is the rule's (see
    `methods.Rule`) and the dictionary's.
    """

    method: str = "madtp"
    threshold_scale: float = 0.0
    temperature: float = 1.0
    min_keep: int = 1
    proportional: bool = False
    queries: int = 0
    dictionary_size: int = 100
    dictionary_width: int = 768
    scales: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def preset(cls, method: str, widths: Mapping[str, int], blocks: Mapping[str, int]) -> PruningSettings:
        """What suits a method and a model's towers: at the paper's full size its 100 atoms of width 768.

        Narrow models get fewer atoms, or matching them would cost more than pruning saves.

        Args:
            method: One of `methods.names()`.
            widths: Width of each tower.
            blocks: Number of blocks of each tower.
        """
        preset = methods.get(method).PRESET
        width = widths.get("text", widths["vision"])  # captions have no text tower
        return cls(
            method,
            temperature=preset.temperature,
            proportional=preset.proportional,
            queries=preset.queries,
            dictionary_size=min(100, width // 4),
            dictionary_width=width,
            scales={tower: preset.scales(tower, number) for tower, number in blocks.items()},
        )

    def rule(self, tower: str, block: int) -> methods.Rule | None:
        """The rule for one block; None where it prunes nothing and hence scores nothing."""
        scales = self.scales.get(tower, [])
        scale = scales[block] if block < len(scales) else 1.0
        threshold_scale = self.threshold_scale * scale if scale else 0.0  # infinity times nothing is nothing
        if threshold_scale <= 0:
            return None
        return methods.Rule(threshold_scale, self.temperature, self.min_keep)


@dataclass(frozen=True)
class BlockTrace:
    """Tokens of each sample (pinned ones included) that entered a block and that left it.

    Where the block was scored, `positions` [all that left] has the original index of every token,
    -1 for a token made of several that stand nowhere; elsewhere it is None.
    """

    entered: list[int]
    left: list[int]
    positions: Tensor | None = None

    @property
    def scored(self) -> bool:
        """Whether pruning was tried here, which costs something even if nothing went."""
        return self.positions is not None


#: Per tower, what each block did; returned by the forward.
TokenTrace = dict[str, list[BlockTrace]]


class BlockPruner:
    """Prunes one tower's blocks in one forward and keeps the record of it."""

    def __init__(
        self,
        tower: str,
        settings: PruningSettings,
        dictionary: mag.AlignmentDictionary | None,
        *,
        pooling: bool,
        backend: Backend,
        pinned: Statistics = PINNED,
    ) -> None:
        self.settings, self.tower, self.dictionary, self.pinned = settings, tower, dictionary, pinned
        self.active = settings.threshold_scale > 0 and dictionary is not None
        self.method = methods.get(settings.method)
        self.folded = dictionary.folded(tower) if dictionary is not None and self.active else None
        self.pooling, self.backend = pooling, backend
        self.pooled: Tensor | None = None
        self.blocks: list[BlockTrace] = []
        self._positions: Tensor | None = None

    def statistics(self) -> Statistics | None:
        """What the coming block's attention must report, or None where nothing is scored."""
        return replace(self.pinned, queries=self.settings.queries) if self._rule() else None

    def prune(self, tokens: Packed, normed: Tensor, attention: Attention) -> Packed:
        """The tokens of `tokens` (after attention) that go on; `normed` is the block's input, normalised."""
        rule = self._rule()
        if rule is None:
            if self.pooling and self.active:
                rows, counts = _split(tokens.lengths, self.pinned, normed.device)
                self._align(normed, rows[PRUNABLE], counts[PRUNABLE])
            self.blocks.append(BlockTrace(tokens.lengths, tokens.lengths))
            return tokens
        rows, counts = _split(tokens.lengths, self.pinned, tokens.data.device)
        with torch.autocast(tokens.data.device.type, enabled=False):  # scores and thresholds are float32 always
            kept = self._kept(tokens, normed, attention, rows[PRUNABLE], counts[PRUNABLE], rule)
        return self._joined(tokens, rows, counts, kept)

    def _kept(
        self,
        tokens: Packed,
        normed: Tensor,
        attention: Attention,
        prunable: Tensor,
        lengths: list[int],
        rule: methods.Rule,
    ) -> methods.PruneDecision:
        """What the method makes of the prunable tokens, whose rows and number in each sample are given."""
        if attention.readout is None or attention.received is None:
            raise ValueError("a block that is scored needs attention statistics")
        logits = self._align(normed, prunable, lengths)
        attended = methods.BlockInputs(
            tokens=tokens.data,
            rows=prunable,
            lengths=lengths,
            class_attention=importance.normalise(
                importance.class_attention(attention.readout, attention.output.detach())[prunable], lengths
            ),
            self_attention=importance.normalise(attention.received[prunable], lengths),
            logits=logits,
        )
        if self.backend == "loop":
            return methods.keep_each(self.method, attended, rule)
        return self.method.keep(attended, rule)

    def _align(self, normed: Tensor, prunable: Tensor, lengths: Sequence[int]) -> Tensor:
        """Dictionary logits of the prunable tokens, [total, atoms]; in training they also pool the tokens."""
        if self.folded is None:
            raise ValueError("a block that is scored needs a dictionary")
        # Of all tokens, and then some: to pick their rows first takes longer than the few pinned ones cost.
        logits = (normed @ self.folded.to(normed.dtype)).index_select(0, prunable)
        if self.pooling:
            pooled = mag.pool(logits, normed[prunable], lengths)
            self.pooled = pooled if self.pooled is None else self.pooled + pooled
        return logits

    def _rule(self) -> methods.Rule | None:
        return self.settings.rule(self.tower, len(self.blocks)) if self.active else None

    def _joined(
        self, tokens: Packed, rows: Sequence[Tensor], counts: Sequence[list[int]], kept: methods.PruneDecision
    ) -> Packed:
        """Of each sample the kept tokens, a merged one last of them, between the pinned ones; and the record."""
        counts = [counts[LEADING], kept.lengths, counts[TRAILING]]
        left = [sum(parts) for parts in zip(*counts, strict=True)]
        order = segments.interleaving(counts, kept.places.device)
        before = self._positions if self._positions is not None else _original(tokens)
        now = torch.where(kept.positions >= 0, before[rows[PRUNABLE]][kept.positions], -1)
        self._positions = torch.cat([before[rows[LEADING]], now, before[rows[TRAILING]]])[order]
        self.blocks.append(BlockTrace(tokens.lengths, left, self._positions))
        # Pinned tokens have places of their own.
        new = segments.inverted(order).split([sum(part) for part in counts])
        places = torch.cat([new[LEADING], new[PRUNABLE][kept.places], new[TRAILING]])
        places = places[segments.inverted(torch.cat(list(rows)))]
        shares = kept.shares.new_ones(len(places)).index_copy(0, rows[PRUNABLE], kept.shares)
        sizes = None
        if self.settings.proportional:
            given = tokens.sizes if tokens.sizes is not None else torch.ones_like(shares)
            sizes = given.new_zeros(len(order)).index_add(0, places, given)
        data = merging.means(tokens.data, places, shares, len(order))
        return replace(tokens, data=data, lengths=left, sizes=sizes)


def _split(lengths: Sequence[int], pinned: Statistics, device: torch.device) -> tuple[list[Tensor], list[list[int]]]:
    """Rows of the LEADING, PRUNABLE and TRAILING tokens, and how many of them each sample has."""
    leading = [min(pinned.leading, length) for length in lengths]
    trailing = [min(pinned.trailing, length - first) for length, first in zip(lengths, leading, strict=True)]
    prunable = [length - first - last for length, first, last in zip(lengths, leading, trailing, strict=True)]
    runs = [count for sample in zip(leading, prunable, trailing, strict=True) for count in sample]
    part = torch.arange(3, device=device).repeat(len(lengths))[segments.segment_ids(runs, device)]
    counts = [leading, prunable, trailing]
    return [segments.rows_of(part == which, sum(number)) for which, number in enumerate(counts)], counts


def _original(tokens: Packed) -> Tensor:
    """Index of each token within its sample, [total]."""
    return torch.cat([torch.arange(length, device=tokens.data.device) for length in tokens.lengths])
