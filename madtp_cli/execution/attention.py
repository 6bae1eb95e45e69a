"""Attention within segments: each sample's queries see the keys of that sample alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.execution.grouped_attention import (
    PackedHeads,
    attend_in_groups,
    group_by_length,
    with_bias,
    with_ones,
)
from madtp_cli.execution.row_rounding import compiles
from madtp_cli.execution.statistics import (
    AttentionRequest,
    AttentionStatistics,
    PaddedHeads,
    attend_in_one_pass,
    sampled_attention_stats,
)
from madtp_cli.pruning import segments

#: Whether torch has flash attention for packed tokens with a scale and a window. Older versions pad on CUDA.
HAS_VARLEN = torch.__version__ >= "2.11"
if HAS_VARLEN:
    from torch.nn.attention.varlen import varlen_attn

Backend = Literal["auto", "loop", "padded", "varlen"]
#: Multiply-adds that take as long as calling the attention of one more sample from Python (60 µs). Below it, samples
#: of different lengths share one padded, masked call.
START_COST = 2_000_000
#: The flash kernel needs a multiple of this number as head width.
ALIGNED = 8


@dataclass(frozen=True)
class Attention:
    """Result of attention; the statistics are None where they were not requested.

    Attributes:
        output: [queries, heads, head width].
        read_out: Attention of the read-out token to each key, float32 [keys, heads].
        received: Received attention of each key, float32 [keys]; see `AttentionStatistics`.
        key_metric: Keys averaged over the heads, [keys, head width].
    """

    output: Tensor
    read_out: Tensor | None = None
    received: Tensor | None = None
    key_metric: Tensor | None = None

    @classmethod
    def of(cls, output: Tensor, statistics: AttentionStatistics) -> Attention:
        """Join an output and statistics."""
        return cls(output, statistics.read_out, statistics.received)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int],
    key_lengths: Sequence[int],
    request: AttentionRequest | None = None,
    backend: Backend = "auto",
    sizes: Tensor | None = None,
    *,
    causal: bool = False,
) -> Attention:
    """Compute scaled dot-product attention within segments.

    Args:
        query: Packed, [queries, heads, head width].
        key: Packed, [keys, heads, head width].
        value: Packed, [keys, heads, head width].
        query_lengths: Queries of each sample.
        key_lengths: Keys of each sample; may differ from its queries.
        request: Statistics of self-attention to return; None for none.
        backend: "loop" gives each sample its own call, so no multiply-add is spent on padding; "padded" is one masked
            call; "varlen" is one flash call without padding, for CUDA in half precision; "auto" is the fastest one on
            this device, see `resolve_backend`.
        sizes: Number of tokens that each key stands for, [keys]. The key is attended to as if it stood there as many
            times (proportional attention, ToMe, arXiv:2210.09461).
        causal: Each query sees the keys up to its own position; for self-attention.
    """
    bias = None if sizes is None else sizes.log()
    heads = PackedHeads(query, key, value, query_lengths, key_lengths, bias, causal)
    attention = _attend(heads, request, resolve_backend(backend, query))
    if request is not None and request.key_metric:
        attention = replace(attention, key_metric=key.detach().mean(1))
    return attention


def _attend(heads: PackedHeads, request: AttentionRequest | None, backend: Backend) -> Attention:
    """Choose the kernel."""
    query_lengths, key_lengths = heads.query_lengths, heads.key_lengths
    if request is not None and request.in_one_pass:
        return _by_groups(heads, request, backend)
    ragged = not (segments.is_uniform(query_lengths) and segments.is_uniform(key_lengths))
    if backend == "varlen":
        output = _varlen(heads)
    elif ragged and backend != "loop" and compiles(heads.query):
        groups = [list(range(len(key_lengths)))]
        if backend != "padded":
            width = heads.query.shape[1] * heads.query.shape[2]
            groups = group_by_length(query_lengths, key_lengths, width, START_COST)
        return Attention.of(*attend_in_groups(heads, groups, request))
    else:
        output = _by_groups(heads, None, backend).output
    if request is None:
        return Attention(output)
    statistics = sampled_attention_stats(
        heads.query, heads.key, query_lengths, request, heads.bias, causal=heads.causal
    )
    return Attention.of(output, statistics)


def resolve_backend(backend: Backend, query: Tensor) -> Backend:
    """Replace "auto" by the fastest backend of a CUDA device; on a CPU "auto" stays and decides by cost.

    On CUDA it is flash attention in half precision. Flash attention has no float32, and one padded call is then faster
    than many small ones. On a CPU, "auto" pads where padding costs less than separate calls: in bfloat16 for each group
    of similar lengths, otherwise for all samples or none.
    """
    if backend != "auto" or query.device.type != "cuda":
        return backend
    return "varlen" if HAS_VARLEN and query.dtype in (torch.float16, torch.bfloat16) else "padded"


def _varlen(heads: PackedHeads) -> Tensor:
    """Return the output of one flash call over packed rows, [queries, heads, head width].

    Flash attention knows segments but no mask. So a bias becomes two more numbers of each key, see `with_bias`.
    """
    query, key, value, width = heads.query, heads.key, heads.value, heads.query.shape[-1]
    scale = width**-0.5
    if heads.bias is not None:
        query, key = with_ones(query), with_bias(key, heads.bias / scale)
    missing = -query.shape[-1] % ALIGNED
    query, key = functional.pad(query, (0, missing)), functional.pad(key, (0, missing))
    value = functional.pad(value, (0, query.shape[-1] - value.shape[-1]))
    starts, key_starts = (
        torch.tensor(segments.offsets(lengths), dtype=torch.int32, device=query.device)
        for lengths in (heads.query_lengths, heads.key_lengths)
    )
    longest, longest_key = max(heads.query_lengths), max(heads.key_lengths)
    window = (-1, 0) if heads.causal else (-1, -1)
    output = cast(
        Tensor,
        varlen_attn(query, key, value, starts, key_starts, longest, longest_key, scale=scale, window_size=window),
    )
    return output[..., :width]


def _groups(
    query_lengths: Sequence[int], key_lengths: Sequence[int], width: int, backend: Backend
) -> Iterator[tuple[slice, slice, slice]]:
    """Yield samples, queries and keys of each call: all in one call if padding is cheap, otherwise one sample each."""
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


def _by_groups(heads: PackedHeads, request: AttentionRequest | None, backend: Backend) -> Attention:
    """Make one call for each of `_groups`."""
    query, key, value, bias = heads.query, heads.key, heads.value, heads.bias
    parts = []
    width = query.shape[1] * query.shape[2]
    for samples, q, k in _groups(heads.query_lengths, heads.key_lengths, width, backend):
        lengths = heads.query_lengths[samples], heads.key_lengths[samples]
        group = PackedHeads(query[q], key[k], value[k], *lengths, None if bias is None else bias[k], heads.causal)
        parts.append(_attend_group(group, None if request is None else request.part(samples, q)))
    if len(parts) == 1:
        return parts[0]
    read_out = [part.read_out for part in parts if part.read_out is not None]
    received = [part.received for part in parts if part.received is not None]
    return Attention(
        torch.cat([part.output for part in parts]),
        torch.cat(read_out) if read_out else None,
        torch.cat(received) if received else None,
    )


def _attend_group(group: PackedHeads, request: AttentionRequest | None) -> Attention:
    """Make one call; padded keys are masked and padded queries dropped."""
    query_lengths, key_lengths = group.query_lengths, group.key_lengths
    q = segments.pad(group.query, query_lengths).transpose(1, 2)
    k, v = (segments.pad(rows, key_lengths).transpose(1, 2) for rows in (group.key, group.value))
    padded = PaddedHeads(q, k, v, _mask(q, group))
    if request is None:
        return Attention(segments.unpad(_fused(padded).transpose(1, 2), query_lengths))
    output, statistics = attend_in_one_pass(padded, key_lengths, request, causal=group.causal)
    read_out, received = statistics.read_out, statistics.received
    return Attention(
        segments.unpad(output.transpose(1, 2), query_lengths),
        None if read_out is None else segments.unpad(read_out, key_lengths),
        None if received is None else segments.unpad(received, key_lengths),
    )


def _mask(q: Tensor, group: PackedHeads) -> Tensor | None:
    """Return what is added to the logits of padded samples, [samples or 1, 1, queries or 1, keys]; None for nothing."""
    mask, key_lengths = None, group.key_lengths
    if group.bias is not None:
        mask = segments.pad(group.bias.to(q.dtype), key_lengths, float("-inf"))[:, None, None, :]
    elif not segments.is_uniform(key_lengths):
        real = segments.real_rows(key_lengths, q.device)[:, None, None, :]
        mask = q.new_zeros(real.shape).masked_fill(~real, float("-inf"))
    if group.causal:
        later = q.new_full((q.shape[2], max(key_lengths)), float("-inf")).triu(1)[None, None]
        mask = later if mask is None else mask + later
    return mask


def _fused(heads: PaddedHeads) -> Tensor:
    """Return attention's output, [samples, heads, queries, head width], by the fastest kernel of this device.

    In bfloat16 on a CPU, torch's fused kernel (forward and backward) takes three times as long as two matrix products
    at 145 tokens and twice as long at 577 tokens. In float32 it is faster.
    """
    q, k, v, mask = heads.query, heads.key, heads.value, heads.mask
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores += mask
        return scores.softmax(-1) @ v
