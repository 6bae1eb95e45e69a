"""Token counts and the cost of each layer: input and output of every FLOPs formula.

The convention is that of the literature and of fvcore: one multiply-add counts once, and a layer norm counts five per
element. Softmax, activations, additions and look-ups count nothing. The scores and products of the pruning method are
part of a pruned model's cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from madtp_cli.execution.block_trace import BlockTrace

CONVENTION = "multiply-adds (fvcore convention)"
#: Tokens of each sample's text inputs, by tower. The tokens of an image follow from the configuration, unless images
#: have different sizes: "image" then holds those of each sample's images.
Lengths = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of every sample through every block of one tower.

    Attributes:
        entered: Tokens before each block, [blocks, samples, inputs]. An NLVR2 sample has two images and one sentence.
        left: Tokens after each block, same shape.
        scored: Whether the block chose tokens to prune, bool [blocks]; this has a cost even if it kept all of them.
        embedded: Tokens that go on to the first block's self-attention, [samples, inputs], if tokens were pruned before
            it; otherwise None.
    """

    entered: np.ndarray
    left: np.ndarray
    scored: np.ndarray
    embedded: np.ndarray | None = None

    @property
    def attended(self) -> np.ndarray:
        """Tokens in the self-attention of each block, [blocks, samples, inputs]."""
        return self.entered if self.embedded is None else np.concatenate([self.embedded[None], self.entered[1:]])

    @classmethod
    def of(cls, blocks: list[BlockTrace], inputs: int) -> TokenCounts:
        """Return the counts of a trace, in which all first inputs precede all second inputs (left and right images)."""
        entered, left = (
            np.array(counts).reshape(len(blocks), inputs, -1).transpose(0, 2, 1)
            for counts in ([block.entered for block in blocks], [block.left for block in blocks])
        )
        embedded = None if blocks[0].embedding is None else np.array(blocks[0].attended).reshape(inputs, -1).T
        return cls(entered, left, np.array([block.scored for block in blocks]), embedded)

    @classmethod
    def dense(cls, tokens: np.ndarray, blocks: int) -> TokenCounts:
        """Return the counts of a dense model: `tokens` [samples, inputs] in each block."""
        counts = np.broadcast_to(tokens, (blocks, *tokens.shape))
        return cls(counts, counts, np.zeros(blocks, bool))

    @classmethod
    def least(
        cls,
        tokens: np.ndarray,
        pruned: np.ndarray,
        protected: int,
        keep: int,
        share: float = 0.0,
        *,
        embedding: bool = False,
    ) -> TokenCounts:
        """Return the smallest possible counts, which an infinite threshold scale gives.

        Args:
            tokens: Tokens before the first block, [samples, inputs].
            pruned: Which blocks prune, bool [blocks].
            protected: Protected tokens.
            keep: Tokens that such a block keeps at least, protected ones not included.
            share: Share of the tokens that such a block keeps at least, protected ones not included.
            embedding: Whether tokens are pruned before the first block too.
        """

        def fewest(current: np.ndarray) -> np.ndarray:
            least = protected + np.maximum(keep, np.ceil((current - protected) * share).astype(int))
            return np.minimum(current, least)

        current = embedded = fewest(tokens) if embedding else tokens
        entered, left = [], []
        for prunes in pruned:
            entered.append(current)
            current = fewest(current) if prunes else current
            left.append(current)
        entered[0] = tokens
        return cls(np.array(entered), np.array(left), pruned, embedded if embedding else None)

    @classmethod
    def joined(cls, parts: list[TokenCounts]) -> TokenCounts:
        """Join the samples of several batches."""
        entered, left = (np.concatenate([getattr(part, name) for part in parts], 1) for name in ("entered", "left"))
        embedded = [part.embedded for part in parts if part.embedded is not None]
        return cls(entered, left, parts[0].scored, np.concatenate(embedded) if embedded else None)


#: Token counts by tower.
Counts = Mapping[str, TokenCounts]


@dataclass(frozen=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
        tower: Name of the tower, or "head".
        name: Name of the layer; blocks are "layer 0", "layer 1", ...
        flops: Multiply-adds of each sample, [samples].
    """

    tower: str
    name: str
    flops: np.ndarray
