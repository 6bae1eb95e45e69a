"""Where the prunable tokens of packed tokens stand, and how a decision moves all tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from madtp_cli import methods
from madtp_cli.execution.packed import Packed
from madtp_cli.pruning import merging, segments


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
        protected, counts = protected_tokens(tokens)
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


def protected_tokens(tokens: Packed) -> tuple[Tensor, Sequence[int]]:
    """Return which tokens are protected and how many each sample has."""
    if tokens.protected is None or tokens.protected_counts is None:
        raise ValueError("a tower that is pruned must state its protected tokens; call `protect_ends` on its tokens")
    return tokens.protected, tokens.protected_counts
