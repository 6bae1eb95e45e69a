"""Attention of ragged samples as two matrix products a group: samples of like lengths side by side, rounded up.

For bfloat16 on a CPU, where torch's fused kernel is the slower one and every new shape is compiled. What a key's size
or padding adds to the logits is two more numbers of each key, which each query multiplies by one: no pass over all
probabilities is needed for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from madtp_cli.execution.row_rounding import rounded
from madtp_cli.execution.statistics import Statistics, received_attention, sample_queries
from madtp_cli.pruning import segments

#: Added to the logit of a slot that holds no key; in bfloat16 its exponential is 0 beside any other's.
NEVER = -10_000.0


@dataclass(frozen=True)
class Slots:
    """Where the tokens of groups lie: each group is [samples, slots, ...], all of them one behind the other.

    `rows` [all slots] is each slot's packed row, that of the sample's last token where no token is left; `real` bool
    [all slots] says where there is one; `places` [total] is the slot of each packed row.
    """

    slots: list[int]
    rows: Tensor
    real: Tensor
    places: Tensor


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    bias: Tensor | None,
    groups: Sequence[Sequence[int]],
    statistics: Statistics | None = None,
    *,
    causal: bool,
) -> tuple[Tensor, ...]:
    """Output of attention [queries, heads, head width]; asked for statistics, also what `sampled_attention_stats` gives.

    Arguments are those of `attention.attend`; `bias` [keys] is added to the logits, and `groups` are samples that go
    through one call, see `alike`.
    """
    asking = _slots(query_lengths, groups, query.device)
    looking = asking if query_lengths == key_lengths else _slots(key_lengths, groups, key.device)
    added = torch.zeros((), device=key.device) if bias is None else bias[looking.rows]
    q = with_ones(query.index_select(0, asking.rows) * query.shape[-1] ** -0.5)
    k = with_bias(key.index_select(0, looking.rows), torch.where(looking.real, added, NEVER))
    blocks = zip(
        _blocks(q, groups, asking.slots),
        _blocks(k, groups, looking.slots),
        _blocks(value.index_select(0, looking.rows), groups, looking.slots),
        strict=True,
    )
    with torch.autocast(query.device.type, enabled=False):
        parts = [
            (
                _two_products(q, k, v, causal=causal).transpose(1, 2),
                *(_looked(q, k, [key_lengths[one] for one in group], statistics, causal=causal) if statistics else ()),
            )
            for group, (q, k, v) in zip(groups, blocks, strict=True)
        ]
    return tuple(
        torch.cat([block.flatten(0, 1) for block in kind]).index_select(0, asking.places)
        for kind in zip(*parts, strict=True)
    )


def alike(query_lengths: Sequence[int], key_lengths: Sequence[int], width: int, start_cost: float) -> list[list[int]]:
    """Samples that are to share a call: the next longest joins while padding it costs less than its own call.

    Args:
        query_lengths: Queries of each sample.
        key_lengths: Keys of each sample.
        width: Numbers of a token.
        start_cost: Multiply-adds that take as long as one more call.

    >>> alike([90, 30, 92, 33], [90, 30, 92, 33], 64, 2e5)
    [[2, 0], [3, 1]]
    """
    groups: list[list[int]] = []
    queries = keys = 0
    for sample in sorted(range(len(key_lengths)), key=lambda one: (-key_lengths[one], -query_lengths[one])):
        own, seen = rounded(query_lengths[sample]), rounded(key_lengths[sample])
        wider = max(queries, own), max(keys, seen)
        here = len(groups[-1]) if groups else 0
        padding = (here + 1) * wider[0] * wider[1] - here * queries * keys - own * seen
        if groups and 2 * padding * width <= start_cost:
            groups[-1].append(sample)
            queries, keys = wider
        else:
            groups.append([sample])
            queries, keys = own, seen
    return groups


def with_bias(key: Tensor, bias: Tensor) -> Tensor:
    """Keys [keys, heads, any] with two more numbers that sum to `bias` [keys]: its rounded value, and what that left.

    Queries `with_ones` add it to their logits.
    """
    high = bias.to(key.dtype)
    told = torch.stack([high, (bias - high).to(key.dtype)], -1)
    return torch.cat([key, told[:, None].expand(-1, key.shape[1], -1)], -1)


def with_ones(query: Tensor) -> Tensor:
    """Queries with two more numbers, each one, for keys `with_bias`."""
    return torch.cat([query, torch.ones_like(query[..., :2])], -1)


def _slots(lengths: Sequence[int], groups: Sequence[Sequence[int]], device: torch.device) -> Slots:
    """A group has as many slots a sample as its longest has tokens, rounded up."""
    slots = [rounded(max(lengths[sample] for sample in group)) for group in groups]
    order = torch.tensor([sample for group in groups for sample in group], device=device)
    many = [number for number, group in zip(slots, groups, strict=True) for _ in group]
    ids, starts = segments.segment_ids(many, device), torch.tensor(segments.offsets(many), device=device)
    within = torch.arange(len(ids), device=device) - starts[ids]
    last = torch.tensor(lengths, device=device)[order] - 1
    first = torch.tensor(segments.offsets(lengths), device=device)[order]
    real = within <= last[ids]
    rows = first[ids] + within.minimum(last[ids])
    own = segments.rows_of(real, sum(lengths))
    return Slots(slots, rows, real, torch.empty_like(own).scatter_(0, rows[own], own))


def _blocks(rows: Tensor, groups: Sequence[Sequence[int]], slots: Sequence[int]) -> list[Tensor]:
    """Each group's rows, [samples, heads, slots, head width]."""
    sizes = [len(group) * number for group, number in zip(groups, slots, strict=True)]
    parts = zip(rows.split(sizes), groups, strict=True)
    return [part.unflatten(0, (len(group), -1)).transpose(1, 2) for part, group in parts]


@torch.no_grad()
def _looked(
    q: Tensor, k: Tensor, lengths: Sequence[int], statistics: Statistics, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """The read-out row [samples, keys, heads] and attention received [samples, keys], of one group."""
    rows, real = sample_queries(lengths, statistics, q.device)
    width = q.shape[3] - 2  # what is added to the logits stands behind; here few products bear it in float32
    asked = q[..., :width].gather(2, rows[:, None, :, None].expand(-1, q.shape[1], -1, width))
    scores = (asked @ k[..., :width].transpose(-1, -2)).float()
    scores += k[:, :1, None, :, width:].float().sum(-1)
    return received_attention(scores, rows, real, causal=causal)


def _two_products(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Attention's output, [samples, heads, queries, head width]; what is added to logits is in q and k already."""
    scores = q @ k.transpose(-1, -2)
    if causal:
        scores += q.new_full(scores.shape[-2:], float("-inf")).triu(1)
    return scores.softmax(-1) @ v
