"""Token counts and the cost of each layer: what every FLOPs formula takes and gives.

The convention is the literature's, which is fvcore's: one multiply-add counts once, and a layer norm counts five
per element. Softmax, activations, additions and look-ups count nothing. The dictionary and the products of the
pruning method are part of a pruned model's cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from madtp_cli.execution.block_pruner import BlockTrace

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
