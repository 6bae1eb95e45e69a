"""What a forward pass records about the tokens of each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from madtp_cli.execution.token_record import TokenRecord
from madtp_cli.pruning import segments


@dataclass(frozen=True)
class BlockTrace:
    """Token counts of one block.

    Attributes:
        entered: Tokens of each sample before the block, protected ones included.
        left: Tokens of each sample after it.
        positions: For a block that was scored, the original index of every token that left, [all that left]; -1 for a
            merged token. Otherwise None.
        record: Where each original token went, for a block that was scored in a model that records; otherwise None.
        embedding: What was pruned before the block's self-attention, which only the first block can have; else None.
    """

    entered: list[int]
    left: list[int]
    positions: Tensor | None = None
    record: TokenRecord | None = None
    embedding: BlockTrace | None = None

    @property
    def attended(self) -> list[int]:
        """Tokens of each sample in the block's self-attention."""
        return self.entered if self.embedding is None else self.embedding.left

    @property
    def scored(self) -> bool:
        """Whether the block chose tokens to prune. That has a cost even if it kept all of them."""
        return self.positions is not None


#: Trace of each block, by tower; part of a model's output.
TokenTrace = dict[str, list[BlockTrace]]


def positions_after(trace: Sequence[BlockTrace], device: torch.device) -> list[Tensor]:
    """Return the original index of every token that left each block, [all that left]; -1 for a merged token.

    Args:
        trace: The blocks of a tower, one or more.
        device: Device of the indices.
    """
    first = trace[0] if trace[0].embedding is None else trace[0].embedding
    last = segments.index_in_segment(first.entered, device) if first.positions is None else first.positions
    after = []
    for block in trace:
        last = last if block.positions is None else block.positions
        after.append(last)
    return after
