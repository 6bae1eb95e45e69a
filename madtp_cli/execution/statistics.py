"""How much attention each token gets: from the token that is read out, and from the others.

Of all queries it is taken on the way, in one pass that forms every probability; of some it is a second look, after
attention by whatever kernel is fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from madtp_cli.pruning import segments

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


@torch.no_grad()
def sampled_attention_stats(
    query: Tensor, key: Tensor, lengths: Sequence[int], statistics: Statistics, bias: Tensor | None, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """The read-out row [keys, heads] and attention received [keys] by evenly spaced queries, packed.

    A sample's queries depend on its own length alone. What 32 of 576 queries look at most is nearly what
    all do, and attention itself can then be one fused call.

    Args:
        query: Packed, [total, heads, head width].
        key: Likewise.
        lengths: Tokens of each sample.
        statistics: With the number of queries.
        bias: Added to the logits of each key, [total]; None for nothing.
        causal: Each query sees the keys up to its own place.
    """
    rows, real = sample_queries(lengths, statistics, query.device)
    first = torch.tensor(segments.offsets(lengths)[:-1], device=query.device)[:, None]
    asked = query.index_select(0, (rows + first).flatten()).unflatten(0, rows.shape).transpose(1, 2)
    numbers = [1 + min(statistics.queries, prunable) for prunable in _prunable(lengths, statistics)]
    scores = _products(asked * query.shape[-1] ** -0.5, key, lengths, numbers)
    if bias is not None:
        scores += segments.pad(bias.float(), lengths)[:, None, None, :]
    readout, received = received_attention(scores, rows, real, causal=causal)
    return segments.unpad(readout, lengths), segments.unpad(received, lengths)


def received_attention(scores: Tensor, rows: Tensor, real: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The read-out row [samples, keys, heads] and attention received [samples, keys].

    Args:
        scores: Logits in float32, [samples, heads, 1 + most, keys], of the queries that `spaced` names.
        rows: From `spaced`.
        real: From `spaced`.
        causal: Each query sees the keys up to its own place.
    """
    sees = rows[:, :, None] >= torch.arange(scores.shape[3], device=scores.device) if causal else None
    if sees is not None:
        scores = scores.masked_fill(~sees[:, None], float("-inf"))
    probabilities = scores.softmax(-1)
    received = (probabilities[:, :, 1:].amax(1) * real[:, :, None]).sum(1)
    if sees is not None:
        received = received / (sees[:, 1:] & real[:, :, None]).sum(1).clamp_min(1)
    return probabilities[:, :, 0].transpose(1, 2), received


def _products(asked: Tensor, key: Tensor, lengths: Sequence[int], numbers: Sequence[int]) -> Tensor:
    """Each sample's queries [samples, heads, some, head width] with its own keys, float32 [..., some, longest].

    `numbers` says how many of its queries are real; the others' rows are finite.
    Nothing is padded on a CPU, where to copy keys takes as long as these few products; the rest of a row is -inf.
    """
    if key.device.type != "cpu":
        scores = (asked @ segments.pad(key, lengths).transpose(1, 2).transpose(-1, -2)).float()
        real = segments.real_rows(lengths, key.device)[:, None, None, :]
        return scores if segments.is_uniform(lengths) else scores.masked_fill(~real, float("-inf"))
    scores = asked.new_full((*asked.shape[:3], max(lengths)), float("-inf"), dtype=torch.float32)
    keys = pairwise(segments.offsets(lengths))
    for own, row, number, (start, end) in zip(scores, asked, numbers, keys, strict=True):
        own[:, :number, : end - start] = row[:, :number] @ key[start:end].permute(1, 2, 0)
        if number < asked.shape[2]:
            own[:, number:] = 0
    return scores


def in_one_pass(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    lengths: Sequence[int],
    statistics: Statistics,
    *,
    causal: bool,
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
    if causal:
        received = received / _onlookers(lengths, statistics, received.device)
    return torch.cat(outputs, 2), readout, received


def sample_queries(lengths: Sequence[int], statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    """The query that is read out, then those asked, [samples, 1 + most]; and which of the latter are real."""
    prunable = _prunable(lengths, statistics)
    many = min(statistics.queries, max(prunable))
    number, last = torch.arange(many, device=device), torch.tensor(lengths, device=device)[:, None] - 1
    given = torch.tensor(prunable, device=device)[:, None]
    asked = given.clamp_max(many)
    rows = statistics.leading + (2 * number + 1) * given // (2 * asked).clamp_min(1)
    read = last if statistics.trailing else torch.zeros_like(last)
    return torch.cat([read, rows.minimum(last)], 1), number < asked


def _prunable(lengths: Sequence[int], statistics: Statistics) -> list[int]:
    """How many tokens of each sample are not pinned."""
    return [max(0, length - statistics.leading - statistics.trailing) for length in lengths]


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
