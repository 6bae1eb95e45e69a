"""Where pruned tokens go: into one merged token per sample, or each into a token that is kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: In place of an index: the token becomes part of its sample's merged token.
MERGED = -1
#: Added to weights. A score can underflow to zero, and the weights of a mean must not all be zero.
WEIGHT_FLOOR = 1e-20


@dataclass(frozen=True)
class PruneDecision:
    """What becomes of each token, in the layout of `methods.BlockInputs`.

    Attributes:
        goes_to: int64 [batch, longest]; index, within the sample, of the kept token that a token becomes part of:
            its own index if it is kept, `MERGED` if it becomes part of the sample's merged token. Cells that are not
            prunable have no meaning.
        weights: float32 [batch, longest]; non-negative weight of a token in the mean of the tokens that become one.
        averaged: Whether tokens that become one are averaged; otherwise they are added up, each times its weight.
        order: int64 [batch, longest]; the order of the kept tokens for the method's next block. The tokens themselves
            stay in their order. None where the method does not need one.
    """

    goes_to: Tensor
    weights: Tensor
    averaged: bool = True
    order: Tensor | None = None


@dataclass(frozen=True)
class Moves:
    """A decision in terms of rows; every field has the shape of the tokens, [tokens] or [batch, tokens].

    Attributes:
        kept: bool; the token stays, as itself or as the mean of the tokens that join it.
        merged: bool; the token becomes part of its sample's merged token.
        target: int64; index of the kept token that it becomes part of. For a token that is merged it is the index of
            the sample's last prunable token, directly after which the merged token stands. For a token that is not
            prunable it is its own index.
        closes: bool; the token is its sample's last prunable token, and the sample has a merged token.
    """

    kept: Tensor
    merged: Tensor
    target: Tensor
    closes: Tensor

    def places(self) -> tuple[Tensor, Tensor]:
        """Return the new index of each token, and the new index of what is kept of the token itself.

        The order of the tokens stays. Indices count along the last dimension. The second result has a meaning for kept
        tokens only.
        """
        added = self.kept.long() + self.closes.long()
        total = added.cumsum(-1)
        own = total - added
        merged = total.gather(-1, self.target) - 1
        return torch.where(self.merged, merged, own.gather(-1, self.target)), own


def moves(decision: PruneDecision, mask: Tensor) -> Moves:
    """Return the moves of the prunable tokens, each field [batch, longest].

    Args:
        decision: What becomes of each token.
        mask: bool [batch, longest]; true for prunable tokens.
    """
    index = torch.arange(mask.shape[1], device=mask.device)
    merged = (decision.goes_to == MERGED) & mask
    is_last = mask & (mask.cumsum(1) == mask.sum(1, keepdim=True))
    last = (index * is_last).sum(1, keepdim=True)
    return Moves(
        kept=(decision.goes_to == index) & mask,
        merged=merged,
        target=torch.where(merged, last, torch.where(mask, decision.goes_to, index)),
        closes=is_last & merged.any(1, keepdim=True),
    )


def merge_into_one(kept: Tensor, weights: Tensor, mask: Tensor) -> PruneDecision:
    """Let the tokens that are not kept become one token, their weighted mean.

    If only one token of a sample would be pruned, it is kept, because merging one token saves nothing.

    Args:
        kept: bool [batch, longest].
        weights: Weight of each token in the mean, [batch, longest].
        mask: bool [batch, longest]; true for prunable tokens.

    Source: MADTP (DTP module), arXiv:2403.02991; keeping the order and the own count of each sample is ours.

    >>> kept, mask = torch.tensor([[True, False, False, True]]), torch.ones(1, 4, dtype=torch.bool)
    >>> merge_into_one(kept, torch.tensor([[0.5, 0.1, 0.1, 0.3]]), mask).goes_to.tolist()
    [[0, -1, -1, 3]]
    """
    one_left = kept.sum(1) == mask.sum(1) - 1
    kept = kept | (one_left[:, None] & mask)  # no torch.where: onnxruntime has none for booleans
    index = torch.arange(mask.shape[1], device=mask.device)
    return PruneDecision(torch.where(kept, index, MERGED), weights)


def mean_shares(weights: Tensor, places: Tensor, number: int) -> Tensor:
    """Return the share of each token in the token it becomes part of, [total]; a token alone has 1.

    Args:
        weights: Positive, [total].
        places: New index of each token, [total].
        number: Tokens afterwards.
    """
    return weights / weights.new_zeros(number).index_add(0, places, weights)[places]


def means(tokens: Tensor, places: Tensor, shares: Tensor, number: int) -> Tensor:
    """Return the weighted mean of the tokens that become one, [number, width]; every place has a token.

    Args:
        tokens: Packed, [total, width].
        places: New index of each token, [total].
        shares: From `mean_shares`, [total]; they sum to one per place, so a token alone does not change at all.
        number: Tokens afterwards.

    >>> means(torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([0, 1, 0]), torch.tensor([0.8, 1.0, 0.2]), 2).tolist()
    [[2.0], [2.0]]
    """
    # Tokens are read once and written once; multiplying and index_add take twice as long.
    order = places.argsort(stable=True)
    members = places.new_zeros(number).index_add(0, places, torch.ones_like(places))
    weights = shares.to(tokens.dtype)[order]
    return functional.embedding_bag(order, tokens, members.cumsum(0) - members, mode="sum", per_sample_weights=weights)


def padded_means(tokens: Tensor, weights: Tensor, places: Tensor, longest: int, *, averaged: bool = True) -> Tensor:
    """Return the same means for padded tokens, by operators that exporters support; [batch, longest, width].

    Places without a token hold 0.

    Args:
        tokens: [batch, tokens, width].
        weights: [batch, tokens]; 0 for what is not a token.
        places: [batch, tokens]; each below `longest`.
        longest: Places of each sample.
        averaged: False for weighted sums instead of weighted means.

    >>> tokens, places = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[0, 1, 1]])
    >>> padded_means(tokens, torch.tensor([[1.0, 1.0, 3.0]]), places, 2).tolist()
    [[[1.0], [3.5]]]
    """
    batch, width = tokens.shape[0], tokens.shape[2]
    shares = weights
    if averaged:
        sums = padded_sums(weights, places, longest).gather(1, places)
        shares = weights / (sums + (sums == 0).to(sums.dtype))  # raw scores can be negative, and so can their sum
    rows = places + longest * torch.arange(batch, device=places.device)[:, None]
    empty = tokens.new_zeros(batch * longest, width)
    sums = empty.index_put((rows.flatten(),), (shares[:, :, None].to(tokens.dtype) * tokens).flatten(0, 1), True)
    return sums.unflatten(0, (batch, longest))


def padded_sums(numbers: Tensor, places: Tensor, longest: int) -> Tensor:
    """Add up the numbers [batch, tokens] that have the same place, [batch, longest]."""
    return numbers.new_zeros(numbers.shape[0], longest).scatter_add(1, places, numbers)
