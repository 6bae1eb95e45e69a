"""Attention over segments: each sample's queries see that sample's keys, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from madtp_cli.execution import grouped_attention
from madtp_cli.execution.row_rounding import compiles
from madtp_cli.execution.statistics import Statistics, in_one_pass, sampled_attention_stats
from madtp_cli.pruning import segments

Backend = Literal["auto", "loop", "padded", "varlen"]
#: Multiply-adds that cost as long as starting one more sample's attention from Python
#: (60 µs): below it samples of unlike lengths share one padded, masked call.
START_COST = 2_000_000
#: Numbers of a head that the flash kernel wants a multiple of.
ALIGNED = 8


@dataclass(frozen=True)
class Attention:
    """What attention gives.

    `output` is [queries, heads, head width]. Asked for statistics, `readout` [keys, heads] is
    the read-out token's attention to each key, and `received` [keys] the sum over the prunable
    queries, or over those asked, of the attention of each query's most attentive head; under a causal mask their
    mean over the queries that can see the key, or early keys would gain by being seen by more.
    """

    output: Tensor
    readout: Tensor | None = None
    received: Tensor | None = None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    statistics: Statistics | None = None,
    backend: Backend = "auto",
    sizes: Tensor | None = None,
    *,
    causal: bool = False,
) -> Attention:
    """Scaled dot-product attention within segments.

    Args:
        query: Packed, [queries, heads, head width].
        key: Packed, [keys, heads, head width]; `value` likewise.
        query_lengths: Queries of each sample.
        key_lengths: Keys of each sample; may differ from its queries.
        statistics: Take them too; of all queries it costs no further multiply-adds, but every probability
            must then be formed; of some it is a second look at these and the read-out query.
        backend: "loop" gives each sample its own call, so that no multiply-add is spent on
            padding; "padded" is one masked call; "varlen" is one flash call without padding, for CUDA in half
            precision; "auto" takes what is fastest here, see `chosen`.
        sizes: How many tokens each key stands for, [keys]: it is attended to as if it stood there
            so many times (proportional attention, ToMe, arXiv:2210.09461).
        causal: Each query sees the keys up to its own place; for self-attention.
    """
    logs = None if sizes is None else sizes.log()
    backend = chosen(backend, query)
    if statistics is not None and not statistics.queries:
        return _by_groups(query, key, value, query_lengths, key_lengths, statistics, logs, backend, causal=causal)
    ragged = not (segments.is_uniform(query_lengths) and segments.is_uniform(key_lengths))
    if backend == "varlen":
        output = _varlen(query, key, value, query_lengths, key_lengths, logs, causal=causal)
    elif ragged and backend != "loop" and compiles(query):
        every = [list(range(len(key_lengths)))]
        width = query.shape[1] * query.shape[2]
        groups = (
            every if backend == "padded" else grouped_attention.alike(query_lengths, key_lengths, width, START_COST)
        )
        return Attention(
            *grouped_attention.attended(
                query, key, value, query_lengths, key_lengths, logs, groups, statistics, causal=causal
            )
        )
    else:
        output = _by_groups(query, key, value, query_lengths, key_lengths, None, logs, backend, causal=causal).output
    if statistics is None:
        return Attention(output)
    return Attention(output, *sampled_attention_stats(query, key, query_lengths, statistics, logs, causal=causal))


def chosen(backend: Backend, query: Tensor) -> Backend:
    """What "auto" is: on CUDA flash in half precision, which has no float32, else one padded call, for starting
    many small ones takes longer; on a CPU "auto" itself, which pads or not by what it
    costs: in bfloat16 for each group of like lengths, else for all or none."""
    if backend != "auto" or query.device.type != "cuda":
        return backend
    return "varlen" if query.dtype in (torch.float16, torch.bfloat16) else "padded"


def _varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    bias: Tensor | None,
    *,
    causal: bool,
) -> Tensor:
    """Output of one flash call over packed rows, [queries, heads, head width]; it knows segments and no mask.

    So `bias` [keys] becomes two more numbers of each key, its rounded value and what rounding left, which each
    query multiplies by one.
    """
    width = query.shape[-1]
    scale = width**-0.5
    if bias is not None:
        query, key = grouped_attention.with_ones(query), grouped_attention.with_bias(key, bias / scale)
    spare = -query.shape[-1] % ALIGNED
    query, key = functional.pad(query, (0, spare)), functional.pad(key, (0, spare))
    value = functional.pad(value, (0, query.shape[-1] - value.shape[-1]))
    starts, key_starts = (
        torch.tensor(segments.offsets(lengths), dtype=torch.int32, device=query.device)
        for lengths in (query_lengths, key_lengths)
    )
    longest, longest_key = max(query_lengths), max(key_lengths)
    window = (-1, 0) if causal else (-1, -1)
    output = cast(
        Tensor,
        varlen_attn(query, key, value, starts, key_starts, longest, longest_key, scale=scale, window_size=window),
    )
    return output[..., :width]


def _groups(
    query_lengths: Sequence[int], key_lengths: Sequence[int], width: int, backend: Backend
) -> Iterator[tuple[slice, slice, slice]]:
    """Samples, queries and keys that go through one call: all if padding them is cheap, else one each."""
    batch = len(query_lengths)
    useful = sum(q * k for q, k in zip(query_lengths, key_lengths, strict=True))
    padding = batch * max(query_lengths) * max(key_lengths) - useful
    if backend in ("padded", "varlen") or (backend == "auto" and 2 * padding * width <= batch * START_COST):
        yield slice(None), slice(None), slice(None)
        return
    queries, keys = segments.offsets(query_lengths), segments.offsets(key_lengths)
    for sample in range(batch):
        yield (
            slice(sample, sample + 1),
            slice(queries[sample], queries[sample + 1]),
            slice(keys[sample], keys[sample + 1]),
        )


def _by_groups(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    statistics: Statistics | None,
    bias: Tensor | None,
    backend: Backend,
    *,
    causal: bool,
) -> Attention:
    """One call for each of `_groups`; `bias` [keys] is added to the logits."""
    parts = [
        _attend_group(
            query[q],
            key[k],
            value[k],
            query_lengths[s],
            key_lengths[s],
            statistics,
            None if bias is None else bias[k].to(query.dtype),
            causal=causal,
        )
        for s, q, k in _groups(query_lengths, key_lengths, query.shape[1] * query.shape[2], backend)
    ]
    if len(parts) == 1:
        return parts[0]
    output = torch.cat([part.output for part in parts])
    if statistics is None:
        return Attention(output)
    return Attention(
        output,
        torch.cat([part.readout for part in parts if part.readout is not None]),
        torch.cat([part.received for part in parts if part.received is not None]),
    )


def _attend_group(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    statistics: Statistics | None,
    bias: Tensor | None,
    *,
    causal: bool,
) -> Attention:
    """One call for samples of like lengths; padded keys are masked, padded queries dropped."""
    q = segments.pad(query, query_lengths).transpose(1, 2)
    k, v = (segments.pad(rows, key_lengths).transpose(1, 2) for rows in (key, value))
    mask = _mask(q, key_lengths, bias, causal=causal)
    if statistics is None:
        return Attention(segments.unpad(_fused(q, k, v, mask).transpose(1, 2), query_lengths))
    output, readout, received = in_one_pass(q, k, v, mask, query_lengths, statistics, causal=causal)
    return Attention(
        segments.unpad(output.transpose(1, 2), query_lengths),
        segments.unpad(readout.transpose(1, 2), key_lengths),
        segments.unpad(received, key_lengths),
    )


def _mask(q: Tensor, key_lengths: Sequence[int], bias: Tensor | None, *, causal: bool) -> Tensor | None:
    """What is added to the logits of padded samples, [samples or 1, 1, queries or 1, keys]; None for nothing."""
    mask = None
    if bias is not None:
        mask = segments.pad(bias, key_lengths, float("-inf"))[:, None, None, :]
    elif not segments.is_uniform(key_lengths):
        real = segments.real_rows(key_lengths, q.device)[:, None, None, :]
        mask = q.new_zeros(real.shape).masked_fill(~real, float("-inf"))
    if causal:
        ahead = q.new_full((q.shape[2], max(key_lengths)), float("-inf")).triu(1)[None, None]
        mask = ahead if mask is None else mask + ahead
    return mask


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention's output, [batch, heads, queries, head width], by what is fastest here.

    For bfloat16 on a CPU torch's fused kernel, forward and backward, takes three times as long as two
    matrix products at 145 tokens and twice as long at 577; in float32 it is the faster one.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores += mask
        return scores.softmax(-1) @ v
