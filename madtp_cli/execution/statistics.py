"""Attention statistics: how much attention each token receives from the read-out token and from prunable tokens.

Statistics of all queries are collected in the attention pass itself, which then has to form every probability.
Statistics of a sample of the queries are computed after attention, which can use the fastest kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from madtp_cli.pruning import segments

#: Attention probabilities in memory at once while statistics of all queries are collected.
PROBABILITIES_AT_ONCE = 16_000_000
#: Which token of a sample the model reads its result from.
ReadOut = Literal["first", "last"]


@dataclass(frozen=True)
class AttentionRequest:
    """Which statistics self-attention returns in addition to its output.

    Attributes:
        protected: Which tokens are protected, bool, in the layout of the queries. Received attention counts the
            queries of the other tokens.
        prunable: Number of the other tokens of each sample; empty for padded tokens, which are counted by the mask.
        read_out: Token whose attention to each token is returned. None if nothing needs it, or if the model has an
            attention-pooling head: it then puts the head's attention into `Attention.read_out` itself.
        queries: Number of evenly spaced prunable queries per sample for received attention; 0 for all, None if
            nothing needs received attention.
        key_metric: Whether to return the keys, averaged over the heads.
    """

    protected: Tensor
    prunable: Sequence[int] = ()
    read_out: ReadOut | None = "first"
    queries: int | None = 0
    key_metric: bool = False

    @property
    def in_one_pass(self) -> bool:
        """Whether the statistics are collected in the attention pass itself."""
        return self.queries == 0

    def part(self, samples: slice, rows: slice) -> AttentionRequest:
        """Return the request for some consecutive samples, whose packed tokens are `rows`."""
        return replace(self, protected=self.protected[rows], prunable=self.prunable[samples])


@dataclass(frozen=True)
class AttentionStatistics:
    """Statistics of self-attention in float32; None where they were not requested.

    Attributes:
        read_out: Attention of the read-out token to each key, [keys, heads] or [samples, keys, heads].
        received: Received attention of each key, [keys] or [samples, keys]: the sum over the queries of the attention
            of each query's most attentive head. Under a causal mask it is the mean over the queries that can see
            the key; otherwise early keys would score high because many queries see them.
    """

    read_out: Tensor | None = None
    received: Tensor | None = None


@dataclass(frozen=True)
class QuerySample:
    """Queries whose attention is computed for statistics.

    Attributes:
        rows: Index of each query within its sample, [samples, read-outs + most]; the read-out query comes first.
        is_real: Which of the queries after the read-out are real, bool [samples, most]; the others only fill up.
        read_outs: 1 if there is a read-out query, else 0.
        received: Whether received attention is requested.
        counts: Real queries of each sample, the read-out included.
    """

    rows: Tensor
    is_real: Tensor
    read_outs: int
    received: bool
    counts: list[int]

    def part(self, samples: Sequence[int]) -> QuerySample:
        """Return the queries of some samples."""
        counts = [self.counts[sample] for sample in samples]
        index = torch.tensor(samples, device=self.rows.device)
        rows, is_real = self.rows[index, : max(counts)], self.is_real[index, : max(counts) - self.read_outs]
        return QuerySample(rows, is_real, self.read_outs, self.received, counts)


def sample_queries(lengths: Sequence[int], request: AttentionRequest) -> QuerySample:
    """Choose evenly spaced prunable queries of packed tokens; a sample's choice depends on its own tokens alone.

    Args:
        lengths: Tokens of each sample.
        request: Which statistics are needed.
    """
    device, most = request.protected.device, request.queries or 0
    last = torch.tensor(lengths, device=device)[:, None] - 1
    first = torch.tensor(segments.offsets(lengths)[:-1], device=device)[:, None]
    parts = [] if request.read_out is None else [last if request.read_out == "last" else torch.zeros_like(last)]
    number = torch.arange(min(most, max(request.prunable)), device=device)
    prunable = torch.tensor(request.prunable, device=device)[:, None]
    if len(number):
        prunable_rows = segments.rows_of(~request.protected, sum(request.prunable))
        start = torch.tensor(segments.offsets(request.prunable)[:-1], device=device)[:, None]
        chosen = start + evenly_spaced(number, prunable, most)
        rows = prunable_rows[chosen.clamp_max(len(prunable_rows) - 1)] - first
        parts.append(rows.clamp_min(0).minimum(last))
    return QuerySample(
        rows=torch.cat(parts, 1) if parts else last[:, :0],
        is_real=number < prunable.clamp_max(most),
        read_outs=int(request.read_out is not None),
        received=request.queries is not None,
        counts=[int(request.read_out is not None) + min(most, count) for count in request.prunable],
    )


def evenly_spaced(number: Tensor, available: Tensor, most: int) -> Tensor:
    """Return the index of each of at most `most` evenly spaced items among the available ones.

    Args:
        number: 0, 1, 2, ..., [most].
        available: Number of items, [samples, 1].
        most: Largest number of chosen items.

    >>> evenly_spaced(torch.arange(2), torch.tensor([[8], [2]]), 2).tolist()
    [[2, 6], [0, 1]]
    """
    return (2 * number + 1) * available // (2 * available.clamp_max(most)).clamp_min(1)


@torch.no_grad()
def sampled_attention_stats(
    query: Tensor,
    key: Tensor,
    lengths: Sequence[int],
    request: AttentionRequest,
    bias: Tensor | None,
    *,
    causal: bool,
) -> AttentionStatistics:
    """Return statistics of evenly spaced queries of packed tokens.

    The keys that 32 of 576 queries attend to most are nearly those of all queries.

    Args:
        query: [total, heads, head width].
        key: [total, heads, head width].
        lengths: Tokens of each sample.
        request: Which statistics are needed.
        bias: Added to the logits of each key, [total]; None for nothing.
        causal: Each query sees the keys up to its own position.
    """
    chosen = sample_queries(lengths, request)
    first = torch.tensor(segments.offsets(lengths)[:-1], device=query.device)[:, None]
    queries = query.index_select(0, (chosen.rows + first).flatten()).unflatten(0, chosen.rows.shape).transpose(1, 2)
    scores = _scores(queries * query.shape[-1] ** -0.5, key, lengths, chosen.counts)
    if bias is not None:
        scores += segments.pad(bias.float(), lengths)[:, None, None, :]
    found = statistics_of(scores, chosen, causal=causal)
    packed = (
        None if values is None else segments.unpad(values, lengths) for values in (found.read_out, found.received)
    )
    return AttentionStatistics(*packed)


def statistics_of(scores: Tensor, chosen: QuerySample, *, causal: bool) -> AttentionStatistics:
    """Return the statistics of padded samples.

    Args:
        scores: Logits in float32 of the chosen queries, [samples, heads, queries, keys].
        chosen: The queries.
        causal: Each query sees the keys up to its own position.
    """
    sees = chosen.rows[:, :, None] >= torch.arange(scores.shape[3], device=scores.device) if causal else None
    if sees is not None:
        scores = scores.masked_fill(~sees[:, None], float("-inf"))
    probabilities, start = scores.softmax(-1), chosen.read_outs
    read_out = probabilities[:, :, 0].transpose(1, 2) if start else None
    if not chosen.received:
        return AttentionStatistics(read_out)
    received = (probabilities[:, :, start:].amax(1) * chosen.is_real[:, :, None]).sum(1)
    if sees is not None:
        received = received / (sees[:, start:] & chosen.is_real[:, :, None]).sum(1).clamp_min(1)
    return AttentionStatistics(read_out, received)


def _scores(queries: Tensor, key: Tensor, lengths: Sequence[int], counts: Sequence[int]) -> Tensor:
    """Return the logits of each sample's queries for its own keys, float32 [samples, heads, queries, longest].

    On a CPU nothing is padded, because copying the keys takes as long as these few products.

    Args:
        queries: [samples, heads, queries, head width].
        key: Packed, [total, heads, head width].
        lengths: Keys of each sample.
        counts: Real queries of each sample. The logits of the others are finite, those of padded keys are -inf.
    """
    if key.device.type != "cpu":
        scores = (queries @ segments.pad(key, lengths).transpose(1, 2).transpose(-1, -2)).float()
        real = segments.real_rows(lengths, key.device)[:, None, None, :]
        return scores if segments.is_uniform(lengths) else scores.masked_fill(~real, float("-inf"))
    scores = queries.new_full((*queries.shape[:3], max(lengths)), float("-inf"), dtype=torch.float32)
    keys = pairwise(segments.offsets(lengths))
    for result, query, count, (start, end) in zip(scores, queries, counts, keys, strict=True):
        result[:, :count, : end - start] = query[:, :count] @ key[start:end].permute(1, 2, 0)
        if count < queries.shape[2]:
            result[:, count:] = 0
    return scores


@dataclass(frozen=True)
class PaddedHeads:
    """Queries, keys and values of padded samples, each [samples, heads, tokens, head width].

    `mask` is added to the logits, broadcast to [samples, heads, queries, keys]; None for nothing.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None = None

    def probabilities(self, rows: slice) -> Tensor:
        """Return the attention probabilities of some queries, [samples, heads, rows, keys]."""
        queries = self.query.shape[2]
        scores = (self.query[:, :, rows] * self.query.shape[3] ** -0.5) @ self.key.transpose(-1, -2)
        if self.mask is None:
            return scores.softmax(-1)
        return (scores + self.mask.expand(-1, -1, queries, -1)[:, :, rows]).softmax(-1)


def attend_in_one_pass(
    heads: PaddedHeads, lengths: Sequence[int], request: AttentionRequest, *, causal: bool
) -> tuple[Tensor, AttentionStatistics]:
    """Return attention's output, [samples, heads, queries, head width], and statistics of all queries.

    The maximum over the heads stands between the softmax and the sum over the queries, so every probability must be
    formed. The queries are processed in chunks to save memory.

    Args:
        heads: Padded queries, keys and values.
        lengths: Tokens of each sample.
        request: Which statistics are needed.
        causal: Each query sees the keys up to its own position.
    """
    samples, number, queries = heads.query.shape[:3]
    keys, prunable = heads.key.shape[2], segments.pad(~request.protected, lengths)
    read_out_rows = [length - 1 if request.read_out == "last" else 0 for length in lengths]
    outputs, received = [], heads.query.new_zeros(samples, keys, dtype=torch.float32)
    read_out = heads.query.new_zeros(samples, number, keys, dtype=torch.float32)
    chunk = max(1, PROBABILITIES_AT_ONCE // (samples * number * keys))
    for start in range(0, queries, chunk):
        rows = slice(start, start + chunk)
        probabilities = heads.probabilities(rows)
        outputs.append(probabilities @ heads.value)
        with torch.no_grad():
            strongest = probabilities.amax(1).float() * prunable[:, rows, None]
            # Rounding depends on the order of a sum. It stays that of the prunable rows if the first token, which is
            # protected in most towers, is added last.
            split = int(start == 0)
            received = received + strongest[:, split:].sum(1) + strongest[:, :split].sum(1)
            _copy_read_out(read_out, probabilities, [row - start for row in read_out_rows])
    if causal:
        received = received / _queries_that_see(prunable)
    output = torch.cat(outputs, 2)
    return output, AttentionStatistics(read_out.transpose(1, 2) if request.read_out else None, received)


def _copy_read_out(read_out: Tensor, probabilities: Tensor, rows: Sequence[int]) -> None:
    """Copy the probabilities of the read-out queries that are in a chunk of queries.

    Args:
        read_out: Written to, [samples, heads, keys].
        probabilities: Attention probabilities of the chunk, [samples, heads, queries, keys].
        rows: Index of each sample's read-out query, counted from the first query of the chunk.
    """
    samples = [sample for sample, row in enumerate(rows) if 0 <= row < probabilities.shape[2]]
    if samples:
        read_out[samples] = probabilities[samples, :, [rows[sample] for sample in samples]].float()


def _queries_that_see(prunable: Tensor) -> Tensor:
    """Return how many prunable queries see each key under a causal mask, [samples, longest]; at least 1."""
    before = prunable.cumsum(1) - prunable.long()
    return (prunable.sum(1, keepdim=True) - before).clamp_min(1)
