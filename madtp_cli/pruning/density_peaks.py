"""Density peaks: which important tokens say something that no more important one says already.

Importance alone keeps ten patches of one big object and loses a small one. Here a token counts for
its importance times its distance from the most alike token that is more important, its leader: Rodriguez
and Laio, "Clustering by fast search and find of density peaks", Science 344 (2014), with importance
in place of density. What does not stay follows its leader.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import segments

#: Numbers of a token that are compared, at most.
COMPARED = 64
#: Tokens, ranked by importance, that are compared at once with all that rank before the last of them.
AT_ONCE = 144


def spacing(width: int) -> int:
    """Every which number of tokens of this width is compared: their cosine is nearly that of all, for less.

    >>> spacing(128), spacing(768)
    (2, 12)
    """
    return -(-width // COMPARED)


def nearest_more_important(
    tokens: Tensor, importance: Tensor, lengths: Sequence[int], rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Row of each token's leader, [total], and how distinct the token is from it, [total] in 0-2.

    The leader is the most alike (by cosine, of numbers `spacing` apart) of the sample's tokens that are more
    important, or as important and earlier; the most important token leads itself and is as distinct as can be, 2.

    Args:
        tokens: Packed, [total, width]; gradients do not pass.
        importance: [total], 0 or more.
        lengths: Tokens of each sample.
        rows: Which rows of `tokens` are meant, [total]; all of them unless given.

    >>> tokens = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    >>> leader, distinct = nearest_more_important(tokens, torch.tensor([0.2, 0.5, 0.3]), [3])
    >>> leader.tolist(), distinct.tolist()
    ([1, 1, 1], [1.0, 2.0, 0.0])
    """
    some = tokens.detach()[:, :: spacing(tokens.shape[1])]
    some = (some if rows is None else some[rows]).float()
    directions = segments.pad(functional.normalize(some, dim=1), lengths)
    if not len(some):
        return importance.new_zeros(0, dtype=torch.long), importance.detach()
    # Sorted, the candidates of each token are those before it, and padding comes last.
    order = segments.pad(importance.detach(), lengths, -1.0).argsort(dim=1, descending=True, stable=True)
    ranked = directions.gather(1, order[:, :, None].expand_as(directions))
    cosine, leader = _most_alike_before(ranked)
    first = torch.tensor(segments.offsets(lengths)[:-1], device=tokens.device)[:, None]
    led_by = order.gather(1, leader) + first
    scattered = torch.empty_like(led_by).scatter_(1, order, led_by), torch.empty_like(cosine).scatter_(1, order, cosine)
    leader, cosine = (segments.unpad(value, lengths) for value in scattered)
    return leader, (1 - cosine).clamp_min(0)


def _most_alike_before(ranked: Tensor) -> tuple[Tensor, Tensor]:
    """Of each direction [samples, longest, numbers] the largest product with one before it, and which that is.

    The first has none: -1 and itself. Formed block by block: most of what comes later is then not compared at all.
    """
    longest = ranked.shape[1]
    later = ranked.new_full((min(AT_ONCE, longest),) * 2, -4.0).triu()
    parts = []
    for start in range(0, longest, AT_ONCE):
        end = min(start + AT_ONCE, longest)
        cosines = ranked[:, start:end] @ ranked[:, :end].transpose(1, 2)
        # Added, which takes a third of the time of filling: no later one is then among the most alike.
        cosines[:, :, start:] += later[: end - start, : end - start]
        parts.append(cosines.max(2))
    cosine, leader = (torch.cat(kind, 1) for kind in zip(*parts, strict=True))
    cosine[:, :1], leader[:, :1] = -1.0, 0
    return cosine, leader


def resolve_targets(leader: Tensor, stays: Tensor, longest: int) -> Tensor:
    """The row at which each token ends that follows leaders until one stays, [total].

    Args:
        leader: From `leaders`; who leads himself must be among those who stay.
        stays: bool [total].
        longest: Tokens of the largest sample.

    >>> resolve_targets(torch.tensor([0, 0, 1, 2]), torch.tensor([True, False, False, True]), 4).tolist()
    [0, 0, 0, 3]
    """
    goal = torch.where(stays, torch.arange(len(leader), device=leader.device), leader)
    for _ in range(max(1, (longest - 1).bit_length())):  # each round doubles how far it has gone
        goal = goal[goal]
    return goal
