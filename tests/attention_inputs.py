"""Random packed heads and requests for statistics, for the tests of the attention."""

from __future__ import annotations

import torch
from torch import Tensor

from madtp_cli.execution.packed import Packed
from madtp_cli.execution.statistics import AttentionRequest, ReadOut


def drawn(lengths: list[int], seed: int, heads: int = 2, width: int = 3) -> Tensor:
    """Return packed random heads with peaked attention, so a swapped axis is noticed."""
    return 2 * torch.randn(sum(lengths), heads, width, generator=torch.Generator().manual_seed(seed))


def requested(
    lengths: list[int], queries: int | None = 0, read_out: ReadOut | None = "first", *, last: bool = False
) -> AttentionRequest:
    """Return a request for tokens whose first one is protected, and the last one if so asked."""
    tokens = Packed(torch.zeros(sum(lengths), 1), lengths).protect_ends(first=True, last=last)
    return request_for(tokens, queries, read_out)


def request_for(tokens: Packed, queries: int | None = 0, read_out: ReadOut | None = "first") -> AttentionRequest:
    """Return a request for tokens with a mask of protected ones."""
    assert tokens.protected is not None
    assert tokens.protected_counts is not None
    prunable = [length - count for length, count in zip(tokens.lengths, tokens.protected_counts, strict=True)]
    return AttentionRequest(tokens.protected, prunable, read_out, queries)
