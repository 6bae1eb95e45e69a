"""Attention over segments: each sample's queries see that sample's keys, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import segments


@dataclass(frozen=True)
class Attention:
    """What attention gives.

    `output` is [queries, heads, head width]. Asked for statistics, `readout` [keys, heads] is
    the read-out token's attention to each key and `received` [keys] what the prunable queries
    pay to it, each query counted with its most attentive head.
    """

    output: Tensor
    readout: Tensor | None = None
    received: Tensor | None = None


def attend(
    query: Tensor, key: Tensor, value: Tensor, query_lengths: Sequence[int], key_lengths: Sequence[int]
) -> Attention:
    """Scaled dot-product attention within segments.

    Args:
        query: Packed, [queries, heads, head width].
        key: Packed, [keys, heads, head width]; `value` likewise.
        query_lengths: Queries of each sample.
        key_lengths: Keys of each sample; may differ from its queries.
    """
    if segments.is_uniform(query_lengths) and segments.is_uniform(key_lengths):
        q, k, v = (
            segments.pad(x, lengths).transpose(1, 2)
            for x, lengths in ((query, query_lengths), (key, key_lengths), (value, key_lengths))
        )
        return Attention(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
    q, k, v = (
        segments.pad(x, lengths).transpose(1, 2)
        for x, lengths in ((query, query_lengths), (key, key_lengths), (value, key_lengths))
    )
    mask = segments.real_rows(key_lengths, key.device)[:, None, None, :]
    output = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return Attention(segments.unpad(output.transpose(1, 2), query_lengths))
