"""Attention of samples of different lengths as two matrix products per group of similar lengths.

This is for bfloat16 on a CPU: torch's fused kernel is slower there, and every new shape of a product is compiled.
So the samples of a group are padded to a common number of slots that recurs. A bias of the keys, such as the logarithm
of their sizes or the mask of the padding, is given as two more numbers per key, which each query multiplies by one.
This needs no pass over the probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from madtp_cli.execution.row_rounding import rounded
from madtp_cli.execution.statistics import (
    AttentionRequest,
    AttentionStatistics,
    QuerySample,
    sample_queries,
    statistics_of,
)
from madtp_cli.pruning import segments

#: Added to the logit of a slot without a key; in bfloat16 its exponential is 0 beside any other.
NO_KEY = -10_000.0


@dataclass(frozen=True)
class Slots:
    """Padded layout of groups: each group is [samples, slots, ...], and the groups follow one another.

    Attributes:
        numbers: Slots per sample, for each group.
        rows: Packed row in each slot, [all slots]; the sample's last row where the sample has no more tokens.
        is_real: Whether the slot has a token of its own, bool [all slots].
        of_row: Slot of each packed row, [total].
    """

    numbers: list[int]
    rows: Tensor
    is_real: Tensor
    of_row: Tensor


@dataclass(frozen=True)
class PackedHeads:
    """Arguments of attention on packed tokens.

    Attributes:
        query: [queries, heads, head width].
        key: [keys, heads, head width].
        value: [keys, heads, head width].
        query_lengths: Queries of each sample.
        key_lengths: Keys of each sample.
        bias: Added to the logits of each key, [keys]; None for nothing.
        causal: Whether each query sees the keys up to its own position only.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    query_lengths: Sequence[int]
    key_lengths: Sequence[int]
    bias: Tensor | None = None
    causal: bool = False


def attend_in_groups(
    heads: PackedHeads, groups: Sequence[Sequence[int]], request: AttentionRequest | None = None
) -> tuple[Tensor, AttentionStatistics]:
    """Return attention's output, [queries, heads, head width], and the requested statistics of sampled queries.

    Args:
        heads: Queries, keys and values.
        groups: Samples that are computed together, see `group_by_length`.
        request: Which statistics are needed; None for none.
    """
    query, key = heads.query, heads.key
    query_slots = _slots(heads.query_lengths, groups, query.device)
    same = heads.query_lengths == heads.key_lengths
    key_slots = query_slots if same else _slots(heads.key_lengths, groups, key.device)
    bias = torch.zeros((), device=key.device) if heads.bias is None else heads.bias[key_slots.rows]
    q = with_ones(query.index_select(0, query_slots.rows) * query.shape[-1] ** -0.5)
    k = with_bias(key.index_select(0, key_slots.rows), torch.where(key_slots.is_real, bias, NO_KEY))
    v = heads.value.index_select(0, key_slots.rows)
    blocks = [
        _blocks(rows, groups, slots.numbers) for rows, slots in ((q, query_slots), (k, key_slots), (v, key_slots))
    ]
    chosen = sample_queries(heads.key_lengths, request) if request else None
    outputs, statistics = [], []
    with torch.autocast(query.device.type, enabled=False):
        for group, q, k, v in zip(groups, *blocks, strict=True):
            outputs.append(_two_products(q, k, v, causal=heads.causal).transpose(1, 2))
            if chosen is not None:
                statistics.append(_group_statistics(q, k, chosen.part(group), causal=heads.causal))
    read_out = [part.read_out for part in statistics if part.read_out is not None]
    received = [part.received for part in statistics if part.received is not None]
    return _packed(outputs, query_slots), AttentionStatistics(
        _packed(read_out, key_slots) if read_out else None, _packed(received, key_slots) if received else None
    )


def _packed(blocks: Sequence[Tensor], slots: Slots) -> Tensor:
    """Return the packed rows of the groups' blocks, each [samples, slots, ...]."""
    return torch.cat([block.flatten(0, 1) for block in blocks]).index_select(0, slots.of_row)


def group_by_length(
    query_lengths: Sequence[int], key_lengths: Sequence[int], width: int, start_cost: float
) -> list[list[int]]:
    """Group samples: the next shorter sample joins a group while padding it costs less than a call of its own.

    Args:
        query_lengths: Queries of each sample.
        key_lengths: Keys of each sample.
        width: Numbers of a token.
        start_cost: Multiply-adds that take as long as one more call.

    >>> group_by_length([90, 30, 92, 33], [90, 30, 92, 33], 64, 2e5)
    [[2, 0], [3, 1]]
    """
    groups: list[list[int]] = []
    queries = keys = 0
    for sample in sorted(range(len(key_lengths)), key=lambda sample: (-key_lengths[sample], -query_lengths[sample])):
        own_queries, own_keys = rounded(query_lengths[sample]), rounded(key_lengths[sample])
        wider = max(queries, own_queries), max(keys, own_keys)
        members = len(groups[-1]) if groups else 0
        padding = (members + 1) * wider[0] * wider[1] - members * queries * keys - own_queries * own_keys
        if groups and 2 * padding * width <= start_cost:
            groups[-1].append(sample)
            queries, keys = wider
        else:
            groups.append([sample])
            queries, keys = own_queries, own_keys
    return groups


def with_bias(key: Tensor, bias: Tensor) -> Tensor:
    """Append two numbers to each key, [keys, heads, width + 2], that sum to its bias.

    The first is the rounded bias, the second the rounding error. Queries from `with_ones` add both to their logits.

    Args:
        key: [keys, heads, width].
        bias: [keys].
    """
    high = bias.to(key.dtype)
    halves = torch.stack([high, (bias - high).to(key.dtype)], -1)
    return torch.cat([key, halves[:, None].expand(-1, key.shape[1], -1)], -1)


def with_ones(query: Tensor) -> Tensor:
    """Append two ones to each query, for keys from `with_bias`."""
    return torch.cat([query, torch.ones_like(query[..., :2])], -1)


def _slots(lengths: Sequence[int], groups: Sequence[Sequence[int]], device: torch.device) -> Slots:
    """Return the layout; a group has as many slots per sample as its longest sample has tokens, rounded up."""
    numbers = [rounded(max(lengths[sample] for sample in group)) for group in groups]
    order = torch.tensor([sample for group in groups for sample in group], device=device)
    per_sample = [number for number, group in zip(numbers, groups, strict=True) for _ in group]
    ids, index = segments.segment_ids(per_sample, device), segments.index_in_segment(per_sample, device)
    last = torch.tensor(lengths, device=device)[order] - 1
    first = torch.tensor(segments.offsets(lengths), device=device)[order]
    is_real = index <= last[ids]
    rows = first[ids] + index.minimum(last[ids])
    real = segments.rows_of(is_real, sum(lengths))
    return Slots(numbers, rows, is_real, torch.empty_like(real).scatter_(0, rows[real], real))


def _blocks(rows: Tensor, groups: Sequence[Sequence[int]], numbers: Sequence[int]) -> list[Tensor]:
    """Return each group's rows as [samples, heads, slots, head width]."""
    sizes = [len(group) * number for group, number in zip(groups, numbers, strict=True)]
    parts = zip(rows.split(sizes), groups, strict=True)
    return [part.unflatten(0, (len(group), -1)).transpose(1, 2) for part, group in parts]


@torch.no_grad()
def _group_statistics(q: Tensor, k: Tensor, chosen: QuerySample, *, causal: bool) -> AttentionStatistics:
    """Return the statistics of one group of samples."""
    width = q.shape[3] - 2  # the bias stands in the last two numbers; here it is added in float32
    queries = q[..., :width].gather(2, chosen.rows[:, None, :, None].expand(-1, q.shape[1], -1, width))
    scores = (queries @ k[..., :width].transpose(-1, -2)).float()
    scores += k[:, :1, None, :, width:].float().sum(-1)
    return statistics_of(scores, chosen, causal=causal)


def _two_products(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Return attention's output, [samples, heads, queries, head width]; `q` and `k` already contain the bias."""
    scores = q @ k.transpose(-1, -2)
    if causal:
        scores += q.new_full(scores.shape[-2:], float("-inf")).triu(1)
    return scores.softmax(-1) @ v
