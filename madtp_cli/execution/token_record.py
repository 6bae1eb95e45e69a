"""The record of where pruned tokens went, for pictures of the pruning. It is off unless a model records."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenRecord:
    """What a scored block did, in terms of the tokens that entered the tower.

    Attributes:
        went_to: int64 [all that entered the tower]; for each original token, the row, among all tokens that left the
            block, of the token that it is or is part of; -1 if it is gone.
        entered_from: int64 [all that entered the tower]; the same among all tokens that entered the block.
        weights: float32 [all that entered the block]; the importance that the method gave to each token, 1 for
            protected tokens.
        protected: bool [all that entered the block].
    """

    went_to: Tensor
    entered_from: Tensor
    weights: Tensor
    protected: Tensor


class TokenRecorder:
    """Follows the original tokens of one tower through the blocks of one forward pass."""

    def __init__(self) -> None:
        #: For each original token its row among the current tokens, or -1; None before the first scored block.
        self._rows: Tensor | None = None

    def record(self, places: Tensor, number: int, weights: Tensor, protected: Tensor) -> TokenRecord:
        """Return the record of a block.

        Args:
            places: Row, after the block, of each token that entered it, [all that entered].
            number: Tokens that left the block. A place that is not below it is that of no token.
            weights, protected: See `TokenRecord`.
        """
        before = torch.arange(len(places), device=places.device) if self._rows is None else self._rows
        moved = torch.where(before < 0, -1, places[before])
        self._rows = torch.where(moved < number, moved, -1)
        return TokenRecord(self._rows, before, weights, protected)
