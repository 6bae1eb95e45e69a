"""Attention over segments: each sample's queries see that sample's keys, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from madtp_cli.pruning import segments

Backend = Literal["auto", "loop", "padded", "varlen"]
#: Multiply-adds that cost as long as starting one more sample's attention from Python
#: (60 µs): below it samples of unlike lengths share one padded, masked call.
START_COST = 2_000_000
#: Numbers of a head that the flash kernel wants a multiple of.
ALIGNED = 8
#: Ragged samples' lengths are rounded up to multiples of it where matrix products are in bfloat16 on a CPU: oneDNN
#: compiles a kernel for each new shape, which can take longer (1 to 2 ms) than a pruned sample's products.
ROUNDED = 16
#: Attention probabilities held at once while statistics are taken, in numbers.
PROBABILITIES_AT_ONCE = 16_000_000


@dataclass(frozen=True)
class Statistics:
    """Which tokens' attention counts: the first `leading` and the last `trailing` tokens of a sample are pinned.

    The model reads out the first of all, or the last of all where that is pinned. Attention received is
    taken from at most `queries` of each sample's prunable queries, evenly spaced; from all where it is 0.
    """

    leading: int = 1
    trailing: int = 0
    queries: int = 0


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
    if backend == "varlen" and (statistics is None or statistics.queries):
        output = _varlen(query, key, value, query_lengths, key_lengths, logs, causal=causal)
        if statistics is None:
            return Attention(output)
        return Attention(output, *_looked(query, key, query_lengths, statistics, logs, causal=causal))
    ragged = not (segments.is_uniform(query_lengths) and segments.is_uniform(key_lengths))
    parts = [
        _attend_group(
            query[q],
            key[k],
            value[k],
            query_lengths[s],
            key_lengths[s],
            statistics,
            None if logs is None else logs[k].to(query.dtype),
            causal=causal,
            rounded=ragged,
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


def chosen(backend: Backend, query: Tensor) -> Backend:
    """What "auto" is: on CUDA flash in half precision, which has no float32, else one padded call, for starting
    many small ones takes longer; on a CPU "auto" itself, which pads or not by what it costs."""
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
        high = (bias / scale).to(key.dtype)
        low = (bias / scale - high).to(key.dtype)
        told = torch.stack([high, low], -1)[:, None].expand(-1, key.shape[1], -1)
        query, key = torch.cat([query, torch.ones_like(query[..., :2])], -1), torch.cat([key, told], -1)
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
    rounded: bool,
) -> Attention:
    """One call for samples of like lengths; padded keys are masked, padded queries dropped.

    `bias` [keys] is added to the attention's logits; `rounded` says that lengths vary from sample to sample.
    """
    q = segments.pad(query, query_lengths).transpose(1, 2)
    k, v = (segments.pad(rows, key_lengths).transpose(1, 2) for rows in (key, value))
    mask = _mask(q, key_lengths, bias, causal=causal)
    if statistics is None:
        output = _fused(q, k, v, mask, rounded=rounded)
        return Attention(segments.unpad(output.transpose(1, 2), query_lengths))
    if statistics.queries:
        output = _fused(q, k, v, mask, rounded=rounded)
        readout, received = _second_look(q, k, mask, query_lengths, statistics, causal=causal, rounded=rounded)
    else:
        output, readout, received = _with_statistics(q, k, v, mask, query_lengths, statistics)
        if causal:
            received = received / _onlookers(query_lengths, statistics, received.device)
    return Attention(
        segments.unpad(output.transpose(1, 2), query_lengths),
        segments.unpad(readout.transpose(1, 2), key_lengths),
        segments.unpad(received, key_lengths),
    )


def _looked(
    query: Tensor,
    key: Tensor,
    lengths: Sequence[int],
    statistics: Statistics,
    bias: Tensor | None,
    *,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """The statistics alone, packed, where a kernel gave the output that tells none."""
    q, k = (segments.pad(rows, lengths).transpose(1, 2) for rows in (query, key))
    mask = _mask(q, lengths, None if bias is None else bias.to(q.dtype), causal=causal)
    readout, received = _second_look(q, k, mask, lengths, statistics, causal=causal, rounded=False)
    return segments.unpad(readout.transpose(1, 2), lengths), segments.unpad(received, lengths)


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


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, rounded: bool) -> Tensor:
    """Attention's output, [batch, heads, queries, head width], by what is fastest here.

    For bfloat16 on a CPU torch's fused kernel, forward and backward, takes three times as long as two
    matrix products at 145 tokens and twice as long at 577; in float32 it is the faster one.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        queries, keys = q.shape[2], k.shape[2]
        if rounded:
            q, k, v = (_rounded_up(rows) for rows in (q, k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if k.shape[2] > keys:
            scores[..., keys:] = float("-inf")
        if mask is not None:
            scores[..., :queries, :keys] += mask
        return (scores.softmax(-1) @ v)[:, :, :queries]


def _rounded_up(rows: Tensor) -> Tensor:
    """With zeros to a multiple of `ROUNDED` rows, [batch, heads, rows, head width]."""
    return functional.pad(rows, (0, 0, 0, -rows.shape[2] % ROUNDED))


def _with_statistics(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, lengths: Sequence[int], statistics: Statistics
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention in one pass over chunks of queries: output [batch, heads, queries, head width],
    the read-out row [batch, heads, keys] and attention received [batch, keys].

    `mask` is added to the logits, None for nothing; `lengths` are the queries of each sample.
    The maximum over heads stands between the softmax and the sum over queries, so every
    probability must be formed; chunks keep them out of memory.
    """
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    chunk = max(1, PROBABILITIES_AT_ONCE // (batch * heads * keys))
    added = None if mask is None else mask.expand(batch, 1, queries, keys)
    asked = _asked(lengths, statistics, q.device)
    read = [length - 1 if statistics.trailing else 0 for length in lengths]
    outputs, received = [], q.new_zeros(batch, keys, dtype=torch.float32)
    readout = q.new_zeros(batch, heads, keys, dtype=torch.float32)
    for start in range(0, queries, chunk):
        scores = (q[:, :, start : start + chunk] * width**-0.5) @ k.transpose(-1, -2)
        probabilities = (scores if added is None else scores + added[:, :, start : start + chunk]).softmax(-1)
        outputs.append(probabilities @ v)
        with torch.no_grad():
            here = [sample for sample, row in enumerate(read) if start <= row < start + chunk]
            if here:
                readout[here] = probabilities[here, :, [read[sample] - start for sample in here]].float()
            strongest = probabilities.amax(1)[:, max(0, statistics.leading - start) :].float()
            if asked is not None:
                strongest = strongest * asked[:, max(start, statistics.leading) : start + chunk, None]
            received = received + strongest.sum(1)
    return torch.cat(outputs, 2), readout, received


@torch.no_grad()
def _second_look(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    lengths: Sequence[int],
    statistics: Statistics,
    *,
    causal: bool,
    rounded: bool,
) -> tuple[Tensor, Tensor]:
    """The read-out row [batch, heads, keys] and attention received [batch, keys] by evenly spaced queries.

    A sample's queries depend on its own length alone. What 32 of 576 queries look at most is nearly what
    all do, and attention itself can then be one fused call.
    """
    rows, real = _spaced(lengths, statistics, q.device)
    picked = rows[:, None, :, None]
    asked = q.gather(2, picked.expand(-1, q.shape[1], -1, q.shape[3])) * q.shape[-1] ** -0.5
    scores = _products(asked, k, rounded=rounded).float()
    if mask is not None:
        scores = scores + mask.expand(-1, 1, q.shape[2], -1).take_along_dim(picked, 2)
    probabilities = scores.softmax(-1)
    received = (probabilities[:, :, 1:].amax(1) * real[:, :, None]).sum(1)
    if causal:
        sees = rows[:, 1:, None] >= torch.arange(k.shape[2], device=q.device)
        received = received / (sees & real[:, :, None]).sum(1).clamp_min(1)
    return probabilities[:, :, 0], received


def _products(q: Tensor, k: Tensor, *, rounded: bool) -> Tensor:
    """Each query's product with each key, [batch, heads, queries, keys].

    One call first copies keys that are not contiguous, which for few queries takes as long as the products; a call
    a sample does not. Bfloat16 on a CPU must copy them in any case.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and rounded:
        return (q @ _rounded_up(k).transpose(-1, -2))[..., : k.shape[2]]
    if q.device.type != "cpu" or q.dtype == torch.bfloat16:
        return q @ k.transpose(-1, -2)
    return torch.stack([one @ keys.transpose(-1, -2) for one, keys in zip(q, k, strict=True)])


def _spaced(lengths: Sequence[int], statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    """The query that is read out, then those asked, [samples, 1 + most]; and which of the latter are real."""
    prunable = [max(0, length - statistics.leading - statistics.trailing) for length in lengths]
    many = min(statistics.queries, max(prunable))
    number, last = torch.arange(many, device=device), torch.tensor(lengths, device=device)[:, None] - 1
    given = torch.tensor(prunable, device=device)[:, None]
    asked = given.clamp_max(many)
    rows = statistics.leading + (2 * number + 1) * given // (2 * asked).clamp_min(1)
    read = last if statistics.trailing else torch.zeros_like(last)
    return torch.cat([read, rows.minimum(last)], 1), number < asked


def _asked(lengths: Sequence[int], statistics: Statistics, device: torch.device) -> Tensor | None:
    """Which queries are neither padding nor pinned at the end, [samples, longest]; None where all are so."""
    if segments.is_uniform(lengths) and not statistics.trailing:
        return None
    ends = torch.tensor(lengths, device=device) - statistics.trailing
    return torch.arange(max(lengths), device=device) < ends[:, None]


def _onlookers(lengths: Sequence[int], statistics: Statistics, device: torch.device) -> Tensor:
    """How many prunable queries see each key under a causal mask, [samples, longest]; 1 where none does."""
    ends = torch.tensor(lengths, device=device) - statistics.trailing
    first = torch.arange(max(lengths), device=device).clamp_min(statistics.leading)
    return (ends[:, None] - first).clamp_min(1)
