"""Padded tokens: a batch as one block with exact masks, for exporters, which follow no lists of lengths.

A model's own forward runs on them as it does on packed ones (`Prunable.padded`). After a pruned block the tokens that
stay are moved to the front, and the block is cut to the largest count, so that what is saved is saved time; with one
sample there is no padding at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.execution import attention
from madtp_cli.execution.attention import Attention, Backend
from madtp_cli.execution.block_pruner import BlockPruner, BlockTrace
from madtp_cli.execution.statistics import Statistics
from madtp_cli.pruning import importance, padded


@dataclass(frozen=True)
class Counts:
    """Tokens of each sample, [batch], and which cells of its block are `real`, [batch, longest]; None for all."""

    counts: Tensor
    real: Tensor | None = None


def counts_of(lengths: Sequence[int] | Counts) -> Tensor:
    """Tokens of each sample, [batch], of packed or of padded ones."""
    return lengths.counts if isinstance(lengths, Counts) else torch.tensor(lengths)


@dataclass(frozen=True)
class Padded:
    """As `Packed`, except that `data` is [batch, longest, width] and `sizes` [batch, longest].

    Each sample's tokens come first; what stands behind them is arbitrary, and nothing looks at it.
    """

    data: Tensor
    lengths: Counts
    sizes: Tensor | None = None

    def replace(self, data: Tensor) -> Padded:
        """The same samples around other rows."""
        return Padded(data, self.lengths, self.sizes)

    def apply_rowwise(self, module: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """`module(rows)`, as `Packed.through`."""
        return module(rows)

    def first(self) -> Tensor:
        """Each sample's first token, [batch, width]."""
        return self.data[:, 0]

    def last(self) -> Tensor:
        """Each sample's last token, [batch, width]."""
        place = (self.lengths.counts - 1)[:, None, None].expand(-1, 1, self.data.shape[2])
        return self.data.gather(1, place).squeeze(1)

    def part(self, samples: slice) -> Padded:
        """Some consecutive samples."""
        real = self.lengths.real
        counts = Counts(self.lengths.counts[samples], None if real is None else real[samples])
        return Padded(self.data[samples], counts, None if self.sizes is None else self.sizes[samples])

    def group_by_memory(self, memory: Padded) -> Padded:
        """As `Packed.beside`, but only for one text each: nothing is exported that asks for more."""
        return self


def pad(block: Tensor, mask: Tensor | None = None) -> Padded:
    """Tokens of [batch, longest, width], those that `mask` [batch, longest] leaves out moved behind the others."""
    if mask is None:
        return Padded(block, Counts(torch.full_like(block[:, 0, 0], block.shape[1], dtype=torch.long)))
    real = mask.bool()
    return _cut(block, real, real.long().cumsum(1) - 1, real.sum(1), real.to(block.dtype))


def _cut(
    tokens: Tensor, real: Tensor, places: Tensor, counts: Tensor, weights: Tensor, sizes: Tensor | None = None
) -> Padded:
    """Move the real tokens to their places, in a block as long as the largest count; tokens of one place are joined."""
    longest = _largest(counts, tokens.shape[1])
    places = torch.where(real, places, 0)
    data = padded.gathered(tokens, weights * real, places, longest)
    cells = torch.arange(longest, device=tokens.device) < counts[:, None]
    return Padded(data, Counts(counts, cells), None if sizes is None else padded.summed(sizes * real, places, longest))


def _largest(counts: Tensor, bound: int) -> Any:
    """A number that is known only when an exported model runs."""
    longest = counts.max().clamp_min(2).item()
    torch._check(longest >= 2)
    torch._check(longest <= bound)
    return longest


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Sequence[int] | Counts,
    key_lengths: Sequence[int] | Counts,
    statistics: Statistics | None = None,
    backend: Backend = "auto",
    sizes: Tensor | None = None,
    *,
    causal: bool = False,
) -> Attention:
    """`attention.attend` for packed tokens and for padded ones, whose query is [batch, queries, heads, head width]."""
    if not isinstance(query_lengths, Counts) and not isinstance(key_lengths, Counts):
        return attention.attend(
            query, key, value, query_lengths, key_lengths, statistics, backend, sizes, causal=causal
        )
    if not isinstance(query_lengths, Counts) or not isinstance(key_lengths, Counts):
        raise TypeError("packed tokens cannot attend to padded ones")
    q, k, v = (rows.transpose(1, 2) for rows in (query, key, value))
    mask = _mask(q, k, key_lengths, sizes, causal=causal)
    if statistics is None or statistics.queries:
        output = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        if statistics is None:
            return Attention(output)
        return Attention(output, *_sampled_attention_stats(q, k, mask, query_lengths.counts, statistics, causal=causal))
    probabilities = _probabilities(q, k, mask)
    rows = torch.arange(q.shape[2], device=q.device)[None, :].expand(q.shape[0], -1)
    ends = query_lengths.counts[:, None] - statistics.trailing
    asked = (rows >= statistics.leading) & (rows < ends)
    readout = _rows(probabilities, _read(query_lengths.counts, statistics))[:, :, 0].transpose(1, 2)
    received = _received(probabilities, rows, asked, causal=causal)
    return Attention((probabilities @ v).transpose(1, 2), readout, received)


def _sampled_attention_stats(
    q: Tensor, k: Tensor, mask: Tensor | None, counts: Tensor, statistics: Statistics, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """The read-out row [batch, keys, heads] and attention received [batch, keys] by evenly spaced queries.

    The queries are those of `attention.attend`.
    """
    number, last = torch.arange(statistics.queries, device=q.device), counts[:, None] - 1
    given = (last + 1 - statistics.leading - statistics.trailing).clamp_min(0)
    asked = given.clamp_max(statistics.queries)
    sample_queries = statistics.leading + (2 * number + 1) * given // (2 * asked).clamp_min(1)
    rows = torch.cat([_read(counts, statistics), sample_queries.minimum(last)], 1)
    probabilities = _probabilities(_rows(q, rows), k, None if mask is None else _rows(mask, rows))
    received = _received(probabilities[:, :, 1:], rows[:, 1:], number < asked, causal=causal)
    return probabilities[:, :, 0].transpose(1, 2), received


def _probabilities(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores if mask is None else scores + mask).softmax(-1)


def _received(probabilities: Tensor, rows: Tensor, asked: Tensor, *, causal: bool) -> Tensor:
    """Attention received, [batch, keys], of the queries `rows` [batch, some] that are `asked` [batch, some]."""
    received = (probabilities.amax(1).float() * asked[:, :, None]).sum(1)
    if not causal:
        return received
    sees = rows[:, :, None] >= torch.arange(probabilities.shape[3], device=rows.device)
    return received / (sees & asked[:, :, None]).sum(1).clamp_min(1)


def _read(counts: Tensor, statistics: Statistics) -> Tensor:
    """The query that the model reads out, [batch, 1]."""
    return counts[:, None] - 1 if statistics.trailing else torch.zeros_like(counts)[:, None]


def _rows(block: Tensor, rows: Tensor) -> Tensor:
    """Some queries of [batch, heads, queries, any]; a dimension of queries that is one stands for all."""
    if block.shape[2] == 1:
        return block
    return block.gather(2, rows[:, None, :, None].expand(-1, block.shape[1], -1, block.shape[3]))


def _mask(q: Tensor, k: Tensor, keys: Counts, sizes: Tensor | None, *, causal: bool) -> Tensor | None:
    """What is added to attention's logits, broadcast over [batch, heads, queries, keys]; None for nothing."""
    mask = None if sizes is None else sizes.clamp_min(1).log().to(q.dtype)[:, None, None, :]
    if keys.real is not None:
        open_ = torch.zeros_like(keys.real, dtype=q.dtype)[:, None, None, :] if mask is None else mask
        mask = open_.masked_fill(~keys.real[:, None, None, :], float("-inf"))
    if causal:
        places = torch.arange(k.shape[2], device=k.device)
        ahead = places[None, :] > places[: q.shape[2], None]
        mask = (q.new_zeros(1, 1, 1, 1) if mask is None else mask).masked_fill(ahead, float("-inf"))
    return mask


class PaddedPruner(BlockPruner):
    """Prunes one tower's blocks in one forward on padded tokens; takes no alignment, which is training's."""

    def prune(self, tokens: Any, normed: Tensor, seen: Attention) -> Any:
        """As `BlockPruner.prune`, on `Padded` tokens."""
        rule = self._rule()
        if rule is None:
            return super().prune(tokens, normed, seen)
        if seen.readout is None or seen.received is None or self.folded is None:
            raise ValueError("a block that is scored needs attention statistics and a dictionary")
        real, prunable, last = self._parts(tokens)
        placed = self.method.place(
            padded.PaddedBlockInputs(
                tokens.data,
                padded.normalise(importance.class_attention(seen.readout, seen.output), prunable),
                padded.normalise(seen.received, prunable),
                normed @ self.folded,
                prunable,
            ),
            rule,
        )
        own = torch.arange(tokens.data.shape[1], device=tokens.data.device)
        # Of a sample first the leading pinned tokens, then what became of the prunable ones, then the trailing.
        inner = torch.where(prunable, self.pinned.leading + placed.places, own)
        places = torch.where(last, own - (prunable.sum(1) - placed.counts)[:, None], inner)
        counts = tokens.lengths.counts - prunable.sum(1) + placed.counts
        weights = torch.where(prunable, placed.importance + 1e-20, 1.0)  # a mean must stay one where scores underflow
        sizes = None
        if self.settings.proportional:
            sizes = torch.ones_like(weights) if tokens.sizes is None else tokens.sizes
        left = _cut(tokens.data, real, places, counts, weights, sizes)
        self.blocks.append(BlockTrace(cast(list[int], tokens.lengths), cast(list[int], left.lengths)))
        return left

    def _parts(self, tokens: Padded) -> tuple[Tensor, Tensor, Tensor]:
        """Which cells hold a token, a prunable one, a trailing pinned one; each bool [batch, longest]."""
        own = torch.arange(tokens.data.shape[1], device=tokens.data.device)
        counts, leading = tokens.lengths.counts[:, None], self.pinned.leading
        real = own < counts
        last = real & (own >= counts - self.pinned.trailing) & (own >= leading)
        return real, real & ~last & (own >= leading), last
