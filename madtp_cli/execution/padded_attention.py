"""Attention on packed or on padded tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.execution import attention
from madtp_cli.execution.attention import Attention, Backend
from madtp_cli.execution.padded import PaddedLengths
from madtp_cli.execution.statistics import (
    AttentionRequest,
    AttentionStatistics,
    PaddedHeads,
    ReadOut,
    evenly_spaced,
)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int] | PaddedLengths,
    key_lengths: Sequence[int] | PaddedLengths,
    request: AttentionRequest | None = None,
    backend: Backend = "auto",
    sizes: Tensor | None = None,
    *,
    causal: bool = False,
) -> Attention:
    """Compute attention on packed tokens, as `attention.attend`, or on padded ones.

    The query of padded tokens is [batch, queries, heads, head width].
    """
    if not isinstance(query_lengths, PaddedLengths) and not isinstance(key_lengths, PaddedLengths):
        return attention.attend(query, key, value, query_lengths, key_lengths, request, backend, sizes, causal=causal)
    if not isinstance(query_lengths, PaddedLengths) or not isinstance(key_lengths, PaddedLengths):
        raise TypeError("packed tokens cannot attend to padded ones")
    q, k, v = (rows.transpose(1, 2) for rows in (query, key, value))
    mask = _mask(q, k, key_lengths, sizes, causal=causal)
    if request is None:
        return Attention(functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2))
    found, output = _with_statistics(PaddedHeads(q, k, v, mask), query_lengths.counts, request, causal=causal)
    metric = key.detach().mean(2) if request.key_metric else None
    return replace(Attention.of(output.transpose(1, 2), found), key_metric=metric)


def _with_statistics(
    heads: PaddedHeads, counts: Tensor, request: AttentionRequest, *, causal: bool
) -> tuple[AttentionStatistics, Tensor]:
    """Return the statistics and attention's output, [batch, heads, queries, head width]."""
    q, k, v, mask = heads.query, heads.key, heads.value, heads.mask
    index = torch.arange(request.protected.shape[1], device=counts.device)
    prunable = ~request.protected & (index < counts[:, None])
    read_out_row = _read_out_row(counts, request.read_out)
    if request.in_one_pass:
        probabilities = _probabilities(q, k, mask)
        read_out = _rows(probabilities, read_out_row)
        return _statistics(read_out, probabilities, index[None], prunable, causal=causal), probabilities @ v
    rows, is_real = _sampled_rows(prunable, counts, request.queries or 0)
    chosen = torch.cat([read_out_row, rows], 1)
    probabilities = _probabilities(_rows(q, chosen), k, None if mask is None else _rows(mask, chosen))
    split = read_out_row.shape[1]
    found = _statistics(probabilities[:, :, :split], probabilities[:, :, split:], rows, is_real, causal=causal)
    if request.queries is None:
        found = replace(found, received=None)
    return found, functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _sampled_rows(prunable: Tensor, counts: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the queries of `statistics.sample_queries` without the read-out.

    Args:
        prunable: bool [batch, longest].
        counts: Tokens of each sample, [batch].
        most: Largest number of queries per sample.

    Returns:
        Index of each query within its sample and whether it is real, each [batch, most].
    """
    number, available = torch.arange(most, device=counts.device), prunable.sum(1, keepdim=True)
    chosen = evenly_spaced(number, available, most)
    # The index of the n-th prunable token is the number of cells up to which there are fewer than n.
    rows = (prunable.cumsum(1)[:, None, :] <= chosen[:, :, None]).sum(2).minimum(counts[:, None] - 1)
    return rows, number < available.clamp_max(most)


def _read_out_row(counts: Tensor, read_out: ReadOut | None) -> Tensor:
    """Return the index of each sample's read-out token, [batch, 1], or [batch, 0] if it is not needed."""
    rows = counts[:, None] - 1 if read_out == "last" else torch.zeros_like(counts)[:, None]
    return rows if read_out is not None else rows[:, :0]


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores if mask is None else scores + mask).softmax(-1)


def _statistics(
    read_out: Tensor, probabilities: Tensor, rows: Tensor, is_real: Tensor, *, causal: bool
) -> AttentionStatistics:
    """Return the statistics of padded samples.

    Args:
        read_out: Attention probabilities of the read-out query, [batch, heads, 0 or 1, keys].
        probabilities: Attention probabilities of queries, [batch, heads, queries, keys].
        rows: Index of these queries within their sample, [batch or 1, queries].
        is_real: Which of them count, bool [batch, queries].
        causal: Each query sees the keys up to its own position.
    """
    received = (probabilities.amax(1).float() * is_real[:, :, None]).sum(1)
    if causal:
        sees = rows[:, :, None] >= torch.arange(probabilities.shape[3], device=rows.device)
        received = received / (sees & is_real[:, :, None]).sum(1).clamp_min(1)
    return AttentionStatistics(read_out[:, :, 0].transpose(1, 2).float() if read_out.shape[2] else None, received)


def _rows(block: Tensor, rows: Tensor) -> Tensor:
    """Select queries of [batch, heads, queries, any]; a dimension of one query stands for all queries."""
    if block.shape[2] == 1:
        return block
    return block.gather(2, rows[:, None, :, None].expand(-1, block.shape[1], -1, block.shape[3]))


def _mask(q: Tensor, k: Tensor, keys: PaddedLengths, sizes: Tensor | None, *, causal: bool) -> Tensor | None:
    """Return what is added to the logits, broadcast over [batch, heads, queries, keys]; None for nothing."""
    mask = None if sizes is None else sizes.clamp_min(1).log().to(q.dtype)[:, None, None, :]
    if keys.real is not None:
        allowed = torch.zeros_like(keys.real, dtype=q.dtype)[:, None, None, :] if mask is None else mask
        mask = allowed.masked_fill(~keys.real[:, None, None, :], float("-inf"))
    if causal:
        index = torch.arange(k.shape[2], device=k.device)
        later = index[None, :] > index[: q.shape[2], None]
        mask = (q.new_zeros(1, 1, 1, 1) if mask is None else mask).masked_fill(later, float("-inf"))
    return mask
