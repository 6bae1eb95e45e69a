"""Padded tokens: a batch as one block with masks, for exporters, which cannot follow lists of lengths.

A model's own forward runs on them as on packed tokens (`Prunable.padded`). After a pruned block, the remaining tokens
move to the front and the block is cut to the largest count. So a pruned token saves time, and one sample has no padding
at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from madtp_cli.pruning import merging


@dataclass(frozen=True)
class PaddedLengths:
    """Token counts of padded samples.

    Attributes:
        counts: Tokens of each sample, [batch].
        real: Which cells of the block hold a token, bool [batch, longest]; None for all.
    """

    counts: Tensor
    real: Tensor | None = None


def counts_of(lengths: Sequence[int] | PaddedLengths) -> Tensor:
    """Return the tokens of each sample, [batch], of packed or padded tokens."""
    return lengths.counts if isinstance(lengths, PaddedLengths) else torch.tensor(lengths)


@dataclass(frozen=True)
class Padded:
    """Padded tokens with the methods of `Packed`.

    Each sample's tokens come first; the cells after them have no meaning.

    Attributes:
        data: [batch, longest, width].
        lengths: Tokens of each sample.
        sizes: Number of original tokens that each token stands for, [batch, longest]; None if all stand for one.
        protected: Which tokens are never pruned, bool [batch, longest]; None if nothing prunes them.
    """

    data: Tensor
    lengths: PaddedLengths
    sizes: Tensor | None = None
    protected: Tensor | None = None

    def replace(self, data: Tensor) -> Padded:
        """Return the same tokens with other values."""
        return replace(self, data=data)

    def protect_ends(self, *, first: bool = True, last: bool = False) -> Padded:
        """Protect the first token of each sample, the last one, or both."""
        index = self.index.expand(self.data.shape[0], -1)
        protected = (index == 0) if first else torch.zeros_like(index, dtype=torch.bool)
        if last:
            protected = protected | (index == self.lengths.counts[:, None] - 1)
        return replace(self, protected=protected)

    @property
    def index(self) -> Tensor:
        """Index of each cell within its sample, [longest]."""
        return torch.arange(self.data.shape[1], device=self.data.device)

    @property
    def real(self) -> Tensor:
        """Which cells hold a token, bool [batch, longest]."""
        return self.index < self.lengths.counts[:, None]

    def apply_rowwise(self, module: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return `module(rows)`, as `Packed.apply_rowwise`."""
        return module(rows)

    def first(self) -> Tensor:
        """Return each sample's first token, [batch, width]."""
        return self.data[:, 0]

    def last(self) -> Tensor:
        """Return each sample's last token, [batch, width]."""
        row = (self.lengths.counts - 1)[:, None, None].expand(-1, 1, self.data.shape[2])
        return self.data.gather(1, row).squeeze(1)

    def one_row_each(self, row: Tensor) -> Padded:
        """Return padded tokens with the same one token, [1, width], for each sample."""
        rows = row.expand(self.data.shape[0], 1, -1)
        return Padded(rows, PaddedLengths(torch.ones_like(self.lengths.counts)))

    def softmax(self, logits: Tensor) -> Tensor:
        """Return the softmax of logits, [batch, longest, any], as `Packed.softmax`."""
        logits = logits.float()
        if self.sizes is not None:
            logits = logits + self.sizes.clamp_min(1).log()[:, :, None]
        if self.lengths.real is not None:
            logits = logits.masked_fill(~self.lengths.real[:, :, None], float("-inf"))
        return logits.softmax(1)

    def part(self, samples: slice) -> Padded:
        """Return some consecutive samples."""
        real, sizes, protected = (
            None if values is None else values[samples] for values in (self.lengths.real, self.sizes, self.protected)
        )
        return Padded(self.data[samples], PaddedLengths(self.lengths.counts[samples], real), sizes, protected)

    def group_by_memory(self, memory: Padded) -> Padded:
        """Return the same tokens: exported models have one text per sample of `memory`."""
        return self


def pad(block: Tensor, mask: Tensor | None = None, *, protected: Tensor | None = None) -> Padded:
    """Make padded tokens; tokens that the mask excludes move to the end of their sample.

    Args:
        block: [batch, longest, width].
        mask: [batch, longest]; true for real tokens. None if all are real.
        protected: bool [batch, longest]; true for tokens that are never pruned.
    """
    if mask is None:
        counts = torch.full_like(block[:, 0, 0], block.shape[1], dtype=torch.long)
        return Padded(block, PaddedLengths(counts), protected=protected)
    real = mask.bool()
    tokens = Padded(block, PaddedLengths(real.sum(1), real), protected=protected)
    return cut(tokens, real, real.long().cumsum(1) - 1, real.sum(1), real.to(block.dtype))


def cut(
    tokens: Padded,
    real: Tensor,
    places: Tensor,
    counts: Tensor,
    weights: Tensor,
    sizes: Tensor | None = None,
    *,
    averaged: bool = True,
) -> Padded:
    """Move the real tokens to their places in a block as long as the largest count.

    Args:
        tokens: Tokens before.
        real: Which cells hold a token, bool [batch, longest].
        places: New index of each token, [batch, longest]; tokens with the same index become their weighted mean.
        counts: Tokens of each sample afterwards, [batch].
        weights: Weight of each token, [batch, longest].
        sizes: Sizes of the tokens, [batch, longest]; None if they are not recorded.
        averaged: False for weighted sums instead of weighted means.
    """
    longest = _largest(counts, tokens.data.shape[1])
    places = torch.where(real, places, 0)
    cells = torch.arange(longest, device=counts.device) < counts[:, None]
    protected = None
    if tokens.protected is not None:
        protected = merging.padded_sums((tokens.protected & real).float(), places, longest) > 0
    return Padded(
        merging.padded_means(tokens.data, weights * real, places, longest, averaged=averaged),
        PaddedLengths(counts, cells),
        None if sizes is None else merging.padded_sums(sizes * real, places, longest),
        protected,
    )


def _largest(counts: Tensor, bound: int) -> Any:
    """Return the largest count, a number that is known only when an exported model runs."""
    longest = counts.max().clamp_min(2).item()
    torch._check(longest >= 2)
    torch._check(longest <= bound)
    return longest
