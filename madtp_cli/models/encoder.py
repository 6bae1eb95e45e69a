"""Pruning inside a block, between attention and feed-forward, on packed tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from madtp_cli import methods
from madtp_cli.models.attention import Attention, Backend, Statistics
from madtp_cli.models.packed import Packed
from madtp_cli.pruning import importance, mag, segments

#: Tokens a model reads its answer from are never scored, pruned or merged: vision [CLS], text [ENC].
PINNED = Statistics(leading=1)


@dataclass(frozen=True)
class PruningSettings:
    """How a model prunes; saved as `madtp` in its config.

    `knob` is the budget knob s (0 = dense); `scales` multiplies it per tower and block, so
    that 0 leaves a block alone; `proportional` lets a token be attended to as often as it stands for
    others; the rest is the rule's (see `methods.Rule`) and the dictionary's.
    """

    method: str = "dtp"
    knob: float = 0.0
    temperature: float = 1.0
    min_keep: int = 1
    proportional: bool = False
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
        return cls(
            method,
            proportional=preset.proportional,
            dictionary_size=min(100, widths["text"] // 4),
            dictionary_width=widths["text"],
            scales={tower: [0.0] * blocks[tower] for tower in preset.unpruned},
        )

    def rule(self, tower: str, block: int) -> methods.Rule | None:
        """The rule for one block; None where it prunes nothing and hence scores nothing."""
        scales = self.scales.get(tower, [])
        scale = scales[block] if block < len(scales) else 1.0
        knob = self.knob * scale if scale else 0.0  # infinity times nothing is nothing
        if knob <= 0:
            return None
        return methods.Rule(knob, self.temperature, self.min_keep)


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
    ) -> None:
        self.settings, self.tower, self.dictionary = settings, tower, dictionary
        self.active = settings.knob > 0 and dictionary is not None
        self.method = methods.get(settings.method)
        self.folded = dictionary.folded(tower) if dictionary is not None and self.active else None
        self.pooling, self.backend = pooling, backend
        self.pooled: Tensor | None = None
        self.blocks: list[BlockTrace] = []
        self._positions: Tensor | None = None

    def statistics(self) -> Statistics | None:
        """What the coming block's attention must report, or None where nothing is scored."""
        return PINNED if self._rule() else None

    def prune(self, tokens: Packed, normed: Tensor, attention: Attention) -> Packed:
        """The tokens of `tokens` (after attention) that go on; `normed` is the block's input, normalised."""
        rule = self._rule()
        if rule is None:
            if self.pooling and self.active:
                self._align(normed[_split(tokens.lengths, normed.device)[1]], tokens.lengths)
            self.blocks.append(BlockTrace(tokens.lengths, tokens.lengths))
            return tokens
        pinned, prunable = _split(tokens.lengths, tokens.data.device)
        with torch.autocast(tokens.data.device.type, enabled=False):  # scores and thresholds are float32 always
            kept = self._kept(tokens, normed[prunable], attention, prunable, rule)
        return self._joined(tokens, pinned, prunable, kept)

    def _kept(
        self, tokens: Packed, seen: Tensor, attention: Attention, prunable: Tensor, rule: methods.Rule
    ) -> methods.Kept:
        """What the method makes of the prunable tokens; `seen` are they at the block's input."""
        if attention.readout is None or attention.received is None:
            raise ValueError("a block that is scored needs attention statistics")
        lengths = [length - PINNED.leading for length in tokens.lengths]
        logits = self._align(seen, tokens.lengths)
        attended = methods.Attended(
            tokens=tokens.data[prunable],
            lengths=lengths,
            sizes=tokens.sizes[prunable] if tokens.sizes is not None else torch.ones_like(attention.received[prunable]),
            class_attention=importance.class_attention(
                attention.readout[prunable], attention.output.detach()[prunable], lengths
            ),
            self_attention=importance.normalise(attention.received[prunable], lengths),
            logits=logits,
        )
        if self.backend == "loop":
            return methods.keep_each(self.method, attended, rule)
        return self.method.keep(attended, rule)

    def _align(self, seen: Tensor, lengths: Sequence[int]) -> Tensor:
        """Dictionary logits of the prunable tokens, [total, atoms]; in training they also pool the tokens."""
        if self.folded is None:
            raise ValueError("a block that is scored needs a dictionary")
        logits = seen @ self.folded.to(seen.dtype)
        if self.pooling:
            pooled = mag.pool(logits, seen, [length - PINNED.leading for length in lengths])
            self.pooled = pooled if self.pooled is None else self.pooled + pooled
        return logits

    def _rule(self) -> methods.Rule | None:
        return self.settings.rule(self.tower, len(self.blocks)) if self.active else None

    def _joined(self, tokens: Packed, pinned: Tensor, prunable: Tensor, kept: methods.Kept) -> Packed:
        """Pinned tokens and the kept ones after them, and the record."""
        ones = [PINNED.leading] * len(kept.lengths)
        data = segments.interleave([tokens.data[pinned], kept.tokens], [ones, kept.lengths])
        left = [length + PINNED.leading for length in kept.lengths]
        before = self._positions if self._positions is not None else _original(tokens)
        now = torch.where(kept.positions >= 0, before[prunable][kept.positions], -1)
        self._positions = segments.interleave([before[pinned], now], [ones, kept.lengths])
        self.blocks.append(BlockTrace(tokens.lengths, left, self._positions))
        sizes = None
        if self.settings.proportional:
            whole = tokens.sizes if tokens.sizes is not None else kept.sizes.new_ones(len(tokens.data))
            sizes = segments.interleave([whole[pinned], kept.sizes], [ones, kept.lengths])
        return Packed(data, left, sizes)


def _split(lengths: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of the pinned and of the prunable tokens."""
    is_pinned = torch.zeros(sum(lengths), dtype=torch.bool, device=device)
    is_pinned[torch.tensor(segments.offsets(lengths)[:-1], device=device)] = True
    rows = torch.arange(len(is_pinned), device=device)
    return rows[is_pinned], rows[~is_pinned]


def _original(tokens: Packed) -> Tensor:
    """Index of each token within its sample, [total]."""
    return torch.cat([torch.arange(length, device=tokens.data.device) for length in tokens.lengths])
