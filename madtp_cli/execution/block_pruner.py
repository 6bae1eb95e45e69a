"""Pruning inside a block, between self-attention and the feed-forward layer, on packed tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from madtp_cli import methods
from madtp_cli.execution.attention import Attention, Backend
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.prunable_rows import PrunableRows, protected_tokens
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.execution.statistics import AttentionRequest, ReadOut
from madtp_cli.execution.token_record import TokenRecorder
from madtp_cli.pruning import importance, mag, merging, segments


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
        self.method: Any = methods.get(settings.method)
        needs_dictionary = methods.DICTIONARY in self.method.NEEDS
        self.active = settings.threshold_scale > 0 and (dictionary is not None or not needs_dictionary)
        self.dictionary = dictionary if needs_dictionary and self.active else None
        self._matrix: Tensor | None = None
        if self.dictionary is not None and not self.dictionary.per_block:
            self._matrix = self.dictionary.folded(tower)  # once for all blocks, in the number format of the tower
        self.raw = methods.RAW_SCORES in self.method.NEEDS
        self.sample_inputs = sample_inputs if methods.SAMPLE_INPUTS in self.method.NEEDS else 1
        #: Sum over the blocks of what the atoms attend to, [batch, atoms, tower width], in the width of the dictionary
        #: if each block has its own projection; None before the first block.
        self.pooled: Tensor | None = None
        self.blocks: list[BlockTrace] = []
        self._embedding: BlockTrace | None = None
        #: Whether the number of original tokens that each token stands for is recorded.
        self.counts_sizes = settings.parameters.proportional or methods.SIZES in self.method.NEEDS
        # Of each token, in the layout of the tokens; None before the first pruned block.
        self._positions: Tensor | None = None
        self._entered: Tensor | None = None
        self._sizes: Tensor | None = None
        self._order: Tensor | None = None
        #: Records where the tokens go; None for no record.
        self.recorder: TokenRecorder | None = None

    def image_grids(self, side: int) -> methods.ImageGrids | None:
        """Return the image sizes of a method that makes images smaller; None for other methods.

        Args:
            side: Rows and columns of patches of a dense image.
        """
        if not self.active or methods.IMAGE not in self.method.NEEDS:
            return None
        rule = methods.Rule(self.settings.threshold_scale, self.settings.min_keep, self.settings.parameters)
        grids: methods.ImageGrids = self.method.grids(side, rule)
        return grids

    @property
    def scores_read_out(self) -> bool:
        """Whether the method needs the attention of what the tower's result is read from."""
        return bool(self.method.NEEDS & methods.READ_OUT_SCORES)

    def start(self, positions: Tensor) -> None:
        """Set which tokens of the dense image the tokens before the first block stand for, [total]."""
        self._positions = positions

    def prune_embedding(self, tokens: Packed, norm: Callable[[Tensor], Tensor]) -> Packed:
        """Return the tokens that go on to the first block.

        Args:
            tokens: The embedded tokens.
            norm: The norm before the self-attention of the first block; its output is compared with the dictionary.
        """
        rule = self.settings.embedding_rule(self.tower) if self.active else None
        if rule is None:
            return tokens
        tokens, self._embedding = self._chosen(tokens, norm(tokens.data), None, rule)
        return tokens

    def request(self, tokens: Packed) -> AttentionRequest | None:
        """Return the statistics that the next block's self-attention must return, or None.

        Args:
            tokens: The tokens that enter the block, before its first norm.
        """
        self._entered = tokens.data if self.raw else None
        needed = self._needed_statistics()
        if needed is None:
            return None
        protected, counts = protected_tokens(tokens)
        prunable = [length - count for length, count in zip(tokens.lengths, counts, strict=True)]
        return AttentionRequest(protected, prunable, **needed)

    def _needed_statistics(self) -> dict[str, Any] | None:
        """Return the fields of the next block's `AttentionRequest`; None if its method needs no statistics."""
        needs = self.method.NEEDS & (methods.READ_OUT_SCORES | {methods.RECEIVED_ATTENTION, methods.KEY_METRIC})
        if self._rule() is None or not needs:
            return None
        return {
            "read_out": self.read_out if self.scores_read_out else None,
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
                self._dictionary_logits(normed, layout.arrange, layout.mask, pooling=True)
            smaller = None if self.blocks or self._embedding is not None else self._positions
            self._append(BlockTrace(tokens.lengths, tokens.lengths, smaller))
            return tokens
        tokens, trace = self._chosen(tokens, normed, attention, rule)
        self._append(trace)
        return tokens

    def _append(self, trace: BlockTrace) -> None:
        """Add the trace of a block; the first one also has what was pruned before it."""
        embedding = None if self.blocks else self._embedding
        if embedding is not None:
            trace = replace(trace, entered=embedding.entered, embedding=embedding)
        self.blocks.append(trace)

    def _chosen(
        self, tokens: Packed, normed: Tensor, attention: Attention | None, rule: methods.Rule
    ) -> tuple[Packed, BlockTrace]:
        """Return the tokens that a rule keeps, and the trace."""
        layout = PrunableRows.of(tokens)
        if self.dictionary is not None:
            # Computed here, in the number format of the run, and cached for the scores.
            self.dictionary.folded(self.tower, len(self.blocks))
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
        attention: Attention | None,
        arrange: Callable[[Tensor], Tensor],
        mask: Tensor,
        *,
        exportable: bool = False,
    ) -> methods.BlockInputs:
        """Compute what the method needs, and nothing else; see `methods.BlockInputs` for `arrange` and `mask`."""
        scores = dict[str, Tensor]()
        if methods.DICTIONARY in self.method.NEEDS:
            pooling = self.pooling and attention is not None
            scores["dictionary_logits"] = self._dictionary_logits(normed, arrange, mask, pooling=pooling)
        if methods.SIZES in self.method.NEEDS:
            scores["sizes"] = mask.float() if self._sizes is None else arrange(self._sizes)
        if methods.ORDER in self.method.NEEDS:
            index = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
            scores["order"] = index if self._order is None else arrange(self._order)
        if attention is not None:
            scores |= self._attention_scores(attention, arrange, mask)
        return methods.BlockInputs(
            mask, tokens, arrange, **scores, sample_inputs=self.sample_inputs, exportable=exportable
        )

    def _attention_scores(
        self, attention: Attention, arrange: Callable[[Tensor], Tensor], mask: Tensor
    ) -> dict[str, Tensor]:
        """Return the scores that come from the block's attention, as far as the method needs them."""
        scores = dict[str, Tensor]()
        if methods.CLASS_ATTENTION in self.method.NEEDS:
            score = importance.class_attention(_requested(attention.read_out), attention.output.detach())
            scores["class_attention"] = arrange(score) if self.raw else importance.normalise(arrange(score), mask)
        if methods.MEAN_CLASS_ATTENTION in self.method.NEEDS:
            scores["mean_class_attention"] = arrange(_requested(attention.read_out).mean(-1))
        if methods.RECEIVED_ATTENTION in self.method.NEEDS:
            scores["received_attention"] = importance.normalise(arrange(_requested(attention.received)), mask)
        if methods.KEY_METRIC in self.method.NEEDS:
            scores["key_metric"] = arrange(_requested(attention.key_metric))
        return scores

    def _dictionary_logits(
        self, normed: Tensor, arrange: Callable[[Tensor], Tensor], mask: Tensor, *, pooling: bool
    ) -> Tensor:
        """Return the dictionary logits, [batch, longest, atoms]; also pool the tokens if asked for."""
        if self.dictionary is None:
            raise ValueError(f"the method {self.settings.method} needs a dictionary, but the model has none")
        tokens, block = normed if self._entered is None else self._entered, len(self.blocks)
        # Computing the logits of the few protected tokens too takes less time than selecting the other rows first.
        matrix = self.dictionary.folded(self.tower, block) if self._matrix is None else self._matrix
        values = tokens @ matrix.to(tokens.dtype)
        bias = self.dictionary.folded_bias(self.tower, block)
        logits = arrange(values if bias is None else values + bias.to(tokens.dtype))
        if pooling:
            pooled = self.dictionary.project_block(self.tower, block, mag.pool(logits, arrange(tokens), mask))
            self.pooled = pooled if self.pooled is None else self.pooled + pooled
        return logits * self.dictionary.width**0.5 if self.raw else logits

    def _apply(
        self, tokens: Packed, layout: PrunableRows, decision: methods.PruneDecision
    ) -> tuple[Packed, BlockTrace]:
        """Move the tokens as decided; return them and the trace."""
        _, protected_counts = protected_tokens(tokens)
        moves, counts = layout.moves(decision)
        left = [count + protected for count, protected in zip(counts, protected_counts, strict=True)]
        places, own = moves.places()
        number = sum(left)
        weights = torch.ones_like(places, dtype=torch.float32)
        weights = weights.index_copy(0, layout.rows, layout.flatten(decision.weights) + merging.WEIGHT_FLOOR)
        shares = merging.mean_shares(weights, places, number) if decision.averaged else weights
        data = merging.means(tokens.data, places, shares, number)
        if self._positions is None:
            self._positions = segments.index_in_segment(tokens.lengths, places.device)
        # Tokens that are not kept share an extra cell at the end.
        kept_places = torch.where(moves.kept, own, number)
        unnamed = self._positions.new_full((number + 1,), -1)
        self._positions = unnamed.scatter(0, kept_places, self._positions)[:number]
        record = None
        if self.recorder is not None:
            record = self.recorder.record(places, number, weights, layout.protected)
        trace = BlockTrace(tokens.lengths, left, self._positions, record)
        if self.counts_sizes:
            before = self._sizes if self._sizes is not None else tokens.sizes
            before = before if before is not None else torch.ones_like(weights)
            self._sizes = before.new_zeros(number).index_add(0, places, before)
        if decision.order is not None:
            order = torch.zeros_like(places).index_copy(0, layout.rows, layout.flatten(decision.order))
            self._order = unnamed.scatter(0, kept_places, order)[:number]
        sizes = self._sizes if self.settings.parameters.proportional else None
        protected = layout.protected.new_zeros(number).scatter(0, places, layout.protected)
        return replace(tokens, data=data, lengths=left, sizes=sizes, protected=protected), trace


def _requested(statistic: Tensor | None) -> Tensor:
    """Return a statistic that the method needs."""
    if statistic is None:
        raise ValueError("a statistic that the method needs is missing; pass `BlockPruner.request` to the attention")
    return statistic
