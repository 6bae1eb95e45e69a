"""Pruning inside a block, between self-attention and the feed-forward layer, on packed tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from madtp_cli import methods
from madtp_cli.execution.attention import Attention, Backend
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.execution.statistics import AttentionRequest, ReadOut
from madtp_cli.pruning import importance, mag, merging, segments


@dataclass(frozen=True)
class BlockTrace:
    """Token counts of one block.

    Attributes:
        entered: Tokens of each sample before the block, protected ones included.
        left: Tokens of each sample after it.
        positions: For a block that was scored, the original index of every token that left, [all that left]; -1 for a
            merged token. Otherwise None.
    """

    entered: list[int]
    left: list[int]
    positions: Tensor | None = None

    @property
    def scored(self) -> bool:
        """Whether the block chose tokens to prune. That has a cost even if it kept all of them."""
        return self.positions is not None


#: Trace of each block, by tower; part of a model's output.
TokenTrace = dict[str, list[BlockTrace]]


class BlockPruner:
    """Prunes the blocks of one tower in one forward pass and records the trace.

    Args:
        tower: Name of the tower.
        settings: How to prune.
        dictionary: The model's dictionary; None if it has none.
        pooling: Whether to pool the tokens that the atoms attend to, for the alignment loss in training.
        backend: Attention backend. With "loop" each sample is pruned by itself.
        read_out: Token from which the tower's result is read. None if the model supplies `Attention.read_out`.
        sample_inputs: Number of the tower's inputs per sample; the first inputs of all samples come first.
    """

    def __init__(
        self,
        tower: str,
        settings: PruningSettings,
        dictionary: mag.AlignmentDictionary | None,
        *,
        pooling: bool,
        backend: Backend,
        read_out: ReadOut | None = "first",
        sample_inputs: int = 1,
    ) -> None:
        self.tower, self.settings, self.pooling = tower, settings, pooling
        self.backend, self.read_out = backend, read_out
        self.method = methods.get(settings.method)
        needs_dictionary = methods.DICTIONARY in self.method.NEEDS
        self.active = settings.threshold_scale > 0 and (dictionary is not None or not needs_dictionary)
        self.dictionary = dictionary if needs_dictionary and self.active else None
        self.raw = methods.RAW_SCORES in self.method.NEEDS
        self.sample_inputs = sample_inputs if methods.SAMPLE_INPUTS in self.method.NEEDS else 1
        #: Sum over the blocks of what the atoms attend to, [batch, atoms, tower width], in the width of the dictionary
        #: if each block has its own projection; None before the first block.
        self.pooled: Tensor | None = None
        self.blocks: list[BlockTrace] = []
        self._positions: Tensor | None = None
        self._entered: Tensor | None = None

    def request(self, tokens: Packed) -> AttentionRequest | None:
        """Return the statistics that the next block's self-attention must return, or None.

        Args:
            tokens: The tokens that enter the block, before its first norm.
        """
        self._entered = tokens.data if self.raw else None
        needed = self._needed_statistics()
        if needed is None:
            return None
        protected, counts = _protected(tokens)
        prunable = [length - count for length, count in zip(tokens.lengths, counts, strict=True)]
        return AttentionRequest(protected, prunable, **needed)

    def _needed_statistics(self) -> dict[str, Any] | None:
        """Return the fields of the next block's `AttentionRequest`; None if its method needs no statistics."""
        needs = self.method.NEEDS & {methods.CLASS_ATTENTION, methods.RECEIVED_ATTENTION, methods.KEY_METRIC}
        if self._rule() is None or not needs:
            return None
        return {
            "read_out": self.read_out if methods.CLASS_ATTENTION in needs else None,
            "queries": self.settings.parameters.queries if methods.RECEIVED_ATTENTION in needs else None,
            "key_metric": methods.KEY_METRIC in needs,
        }

    def prune(self, tokens: Packed, normed: Tensor, attention: Attention) -> Packed:
        """Return the tokens that go on to the feed-forward layer.

        Args:
            tokens: Tokens after self-attention.
            normed: The normalised tokens that entered self-attention, [total, width].
            attention: Result of self-attention, with the requested statistics.
        """
        rule = self._rule()
        if rule is None:
            if self.pooling and self.dictionary is not None:
                layout = PrunableRows.of(tokens)
                self._dictionary_logits(normed, layout.arrange, layout.mask)
            self.blocks.append(BlockTrace(tokens.lengths, tokens.lengths))
            return tokens
        layout = PrunableRows.of(tokens)
        with torch.autocast(tokens.data.device.type, enabled=False):  # scores and thresholds are always float32
            inputs = self._inputs(tokens.data, normed, attention, layout.arrange, layout.mask)
            decision = self._decide(inputs, layout.lengths, rule)
        del inputs  # the scores need memory no longer
        return self._apply(tokens, layout, decision)

    def _decide(self, inputs: methods.BlockInputs, lengths: list[int], rule: methods.Rule) -> methods.PruneDecision:
        """Ask the method, with the "loop" backend for each sample by itself."""
        if self.backend == "loop":
            return methods.keep_each(self.method, inputs, lengths, rule)
        return self.method.keep(inputs, rule)

    def _rule(self) -> methods.Rule | None:
        """Return the rule of the next block; None if it is not pruned."""
        return self.settings.rule(self.tower, len(self.blocks)) if self.active else None

    def _inputs(
        self,
        tokens: Tensor,
        normed: Tensor,
        attention: Attention,
        arrange: Callable[[Tensor], Tensor],
        mask: Tensor,
        *,
        exportable: bool = False,
    ) -> methods.BlockInputs:
        """Compute what the method needs, and nothing else; see `methods.BlockInputs` for `arrange` and `mask`."""
        scores = dict[str, Tensor]()
        if methods.DICTIONARY in self.method.NEEDS:
            scores["dictionary_logits"] = self._dictionary_logits(normed, arrange, mask)
        if methods.CLASS_ATTENTION in self.method.NEEDS:
            score = importance.class_attention(_requested(attention.read_out), attention.output.detach())
            scores["class_attention"] = arrange(score) if self.raw else importance.normalise(arrange(score), mask)
        if methods.RECEIVED_ATTENTION in self.method.NEEDS:
            scores["received_attention"] = importance.normalise(arrange(_requested(attention.received)), mask)
        if methods.KEY_METRIC in self.method.NEEDS:
            scores["key_metric"] = arrange(_requested(attention.key_metric))
        return methods.BlockInputs(
            mask, tokens, arrange, **scores, sample_inputs=self.sample_inputs, exportable=exportable
        )

    def _dictionary_logits(self, normed: Tensor, arrange: Callable[[Tensor], Tensor], mask: Tensor) -> Tensor:
        """Return the dictionary logits, [batch, longest, atoms]; in training also pool the tokens."""
        if self.dictionary is None:
            raise ValueError(f"the method {self.settings.method} needs a dictionary, but the model has none")
        tokens, block = normed if self._entered is None else self._entered, len(self.blocks)
        # Computing the logits of the few protected tokens too takes less time than selecting the other rows first.
        values = tokens @ self.dictionary.folded(self.tower, block).to(tokens.dtype)
        bias = self.dictionary.folded_bias(self.tower, block)
        logits = arrange(values if bias is None else values + bias.to(tokens.dtype))
        if self.pooling:
            pooled = self.dictionary.project_block(self.tower, block, mag.pool(logits, arrange(tokens), mask))
            self.pooled = pooled if self.pooled is None else self.pooled + pooled
        return logits * self.dictionary.width**0.5 if self.raw else logits

    def _apply(self, tokens: Packed, layout: PrunableRows, decision: methods.PruneDecision) -> Packed:
        """Move the tokens as decided and record the block."""
        _, protected_counts = _protected(tokens)
        moves, counts = layout.moves(decision)
        left = [count + protected for count, protected in zip(counts, protected_counts, strict=True)]
        places, own = moves.places()
        number = sum(left)
        weights = torch.ones_like(places, dtype=torch.float32)
        weights = weights.index_copy(0, layout.rows, layout.flatten(decision.weights) + merging.WEIGHT_FLOOR)
        data = merging.means(tokens.data, places, merging.mean_shares(weights, places, number), number)
        if self._positions is None:
            self._positions = segments.index_in_segment(tokens.lengths, places.device)
        # Tokens that are not kept share an extra cell at the end.
        unnamed = self._positions.new_full((number + 1,), -1)
        self._positions = unnamed.scatter(0, torch.where(moves.kept, own, number), self._positions)[:number]
        self.blocks.append(BlockTrace(tokens.lengths, left, self._positions))
        sizes = None
        if self.settings.parameters.proportional:
            before = tokens.sizes if tokens.sizes is not None else torch.ones_like(weights)
            sizes = before.new_zeros(number).index_add(0, places, before)
        protected = layout.protected.new_zeros(number).scatter(0, places, layout.protected)
        return replace(tokens, data=data, lengths=left, sizes=sizes, protected=protected)


@dataclass(frozen=True)
class PrunableRows:
    """Where the prunable tokens of packed tokens stand.

    Attributes:
        protected: Protected tokens, bool [total].
        rows: Rows of the prunable tokens, [prunable].
        lengths: Prunable tokens of each sample.
        mask: bool [batch, longest]; the cells of the padded layout that hold a prunable token.
    """

    protected: Tensor
    rows: Tensor
    lengths: list[int]
    mask: Tensor

    @classmethod
    def of(cls, tokens: Packed) -> PrunableRows:
        """Find the prunable tokens."""
        protected, counts = _protected(tokens)
        lengths = [length - count for length, count in zip(tokens.lengths, counts, strict=True)]
        rows = segments.rows_of(~protected, sum(lengths))
        return cls(protected, rows, lengths, segments.real_rows(lengths, protected.device))

    def arrange(self, values: Tensor) -> Tensor:
        """Bring values of all tokens, [total, ...], into the padded layout [batch, longest, ...]."""
        return segments.pad(values.index_select(0, self.rows), self.lengths)

    def flatten(self, values: Tensor) -> Tensor:
        """Return the values of the prunable tokens, [prunable], of a padded layout."""
        return segments.unpad(values, self.lengths)

    def moves(self, decision: methods.PruneDecision) -> tuple[merging.Moves, list[int]]:
        """Return the moves of all tokens, each field [total], and how many prunable tokens each sample then has.

        Protected tokens stay.
        """
        padded = merging.moves(decision, self.mask)
        # The only time that the host waits for the device.
        counts: list[int] = (padded.kept.sum(1) + padded.closes.sum(1)).tolist()
        first = torch.tensor(segments.offsets(self.lengths)[:-1], device=self.rows.device)[:, None]
        target = self.rows.index_select(0, self.flatten(padded.target + first))
        nowhere = torch.zeros_like(self.protected)
        moves = merging.Moves(
            kept=self.protected.index_copy(0, self.rows, self.flatten(padded.kept)),
            merged=nowhere.index_copy(0, self.rows, self.flatten(padded.merged)),
            target=torch.arange(len(nowhere), device=target.device).index_copy(0, self.rows, target),
            closes=nowhere.index_copy(0, self.rows, self.flatten(padded.closes)),
        )
        return moves, counts


def _protected(tokens: Packed) -> tuple[Tensor, Sequence[int]]:
    """Return which tokens are protected and how many each sample has."""
    if tokens.protected is None or tokens.protected_counts is None:
        raise ValueError("a tower that is pruned must state its protected tokens; call `protect_ends` on its tokens")
    return tokens.protected, tokens.protected_counts


def _requested(statistic: Tensor | None) -> Tensor:
    """Return a statistic that the method needs."""
    if statistic is None:
        raise ValueError("a statistic that the method needs is missing; pass `BlockPruner.request` to the attention")
    return statistic
