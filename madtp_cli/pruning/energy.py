"""PiToMe: tokens in large groups of similar tokens have a high energy and merge in pairs; rare ones are protected.

Source: Tran et al., "Accelerating Transformers with Spectrum-Preserving Token Merging", arXiv:2405.16148.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import ranking


def cosines(metric: Tensor) -> Tensor:
    """Return the cosine of each pair of tokens, float32 [batch, longest, longest], without gradients."""
    directions = functional.normalize(metric.detach().float(), dim=-1)
    return directions @ directions.transpose(1, 2)


def energy(cosine: Tensor, mask: Tensor, margin: float, alpha: float = 1.0) -> Tensor:
    """Return the mean over a sample's tokens of elu(cosine - margin), [batch, longest]; the token itself counts.

    Args:
        cosine: From `cosines`.
        mask: bool [batch, longest]; true for prunable tokens.
        margin: Cosine above which two tokens are similar.
        alpha: How much a dissimilar token lowers the energy at most.

    >>> mask = torch.ones(1, 2, dtype=torch.bool)
    >>> energy(torch.tensor([[[1.0, 0.5], [0.5, 1.0]]]), mask, 0.5).tolist()
    [[0.25, 0.25]]
    """
    similar = functional.elu(cosine - margin, alpha).masked_fill(~mask[:, None, :], 0.0)
    return similar.sum(2) / mask.sum(1, keepdim=True).clamp_min(1)


def merged_pairs(mask: Tensor, share: float, min_keep: int) -> Tensor:
    """Return how many tokens join another one, int64 [batch]: the tokens minus the kept share, rounded down.

    At most half of the tokens can join another one.

    Args:
        mask: bool [batch, longest]; true for prunable tokens.
        share: Share of the tokens that is kept, 0 to 1.
        min_keep: Tokens that a sample keeps at least.

    >>> merged_pairs(torch.ones(1, 49, dtype=torch.bool), 0.9, 1).tolist()
    [4]
    """
    tokens = mask.sum(1)
    pairs = (tokens.double() - tokens.double() * share).floor().long()
    return pairs.minimum(tokens // 2).minimum((tokens - min_keep).clamp_min(0))


def join_pairs(cosine: Tensor, energy: Tensor, mask: Tensor, pairs: Tensor, *, exportable: bool = False) -> Tensor:
    """Return the index of the token that each token becomes part of, int64 [batch, longest].

    The tokens with the highest energy, two for each pair, are candidates. By falling energy, every second one joins the
    most similar one of the others.

    Args:
        cosine: From `cosines`.
        energy: From `energy`.
        mask: bool [batch, longest]; true for prunable tokens.
        pairs: From `merged_pairs`, [batch].
        exportable: Whether only operators are allowed that exporters support.
    """
    rank = ranking.ranks(energy, mask, exportable=exportable)
    index = torch.arange(mask.shape[1], device=mask.device)
    if not mask.shape[1]:
        return index.expand(mask.shape)
    candidate = (rank < 2 * pairs[:, None]) & mask
    stays = candidate & (rank % 2 == 1)
    most_similar = cosine.masked_fill(~stays[:, None, :], -2.0).max(2).indices
    return torch.where(candidate & (rank % 2 == 0), most_similar, index)
