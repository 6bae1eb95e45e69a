"""Pruning inside a block on padded tokens, for exporters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from madtp_cli import methods
from madtp_cli.execution.attention import Attention
from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.execution.padded import Padded, cut
from madtp_cli.execution.statistics import AttentionRequest
from madtp_cli.pruning import merging


class PaddedPruner(BlockPruner):
    """Prunes padded tokens; it pools nothing, because training runs on packed tokens."""

    def request(self, tokens: Any) -> AttentionRequest | None:
        """Return the statistics that the next block's self-attention must return, or None."""
        self._entered = tokens.data if self.raw else None
        needed = self._needed_statistics()
        return None if needed is None else AttentionRequest(_protected(tokens), **needed)

    def prune(self, tokens: Any, normed: Tensor, attention: Attention) -> Any:
        """Return the tokens that go on, as `BlockPruner.prune`, for `Padded` tokens."""
        rule = self._rule()
        if rule is None:
            self._append(BlockTrace(tokens.lengths, tokens.lengths))
            return tokens
        tokens, trace = self._chosen(tokens, normed, attention, rule)
        self._append(trace)
        return tokens

    def _chosen(
        self, tokens: Any, normed: Tensor, attention: Attention | None, rule: methods.Rule
    ) -> tuple[Any, BlockTrace]:
        """Return the tokens that a rule keeps, and the trace."""
        real = tokens.real
        prunable = real & ~_protected(tokens)
        inputs = self._inputs(tokens.data, normed, attention, _unchanged, prunable, exportable=True)
        decision = self.method.keep(inputs, rule)
        del inputs  # the scores need memory no longer
        moves = merging.moves(decision, prunable)
        moves = replace(moves, kept=moves.kept | (real & ~prunable))
        places, _ = moves.places()
        weights = torch.where(prunable, decision.weights + merging.WEIGHT_FLOOR, 1.0)
        sizes = None
        if self.counts_sizes:
            sizes = tokens.sizes if self._sizes is None else self._sizes
            sizes = torch.ones_like(weights) if sizes is None else sizes
        counts = moves.kept.sum(1) + moves.closes.sum(1)
        left = cut(tokens, real, places, counts, weights, sizes, averaged=decision.averaged)
        self._sizes = left.sizes
        if decision.order is not None:
            order = torch.where(moves.kept & prunable, decision.order, 0)
            self._order = merging.padded_sums(order, torch.where(real, places, 0), left.data.shape[1])
        trace = BlockTrace(cast(list[int], tokens.lengths), cast(list[int], left.lengths))
        return left if self.settings.parameters.proportional else replace(left, sizes=None), trace


def _unchanged(values: Tensor) -> Tensor:
    """Padded tokens already have the layout of a method's inputs."""
    return values


def _protected(tokens: Padded) -> Tensor:
    """Return which tokens are protected, bool [batch, longest]."""
    if tokens.protected is None:
        raise ValueError("a tower that is pruned must state its protected tokens; call `protect_ends` on its tokens")
    return tokens.protected
