"""Segments of a packed tensor: `[total, ...]` rows of which each sample owns a run.

Every function takes the `lengths` of the runs in packing order; they sum to `total`.
Nothing crosses a segment's border, which is why no sample depends on its batch mates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def segment_ids(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Which segment each row belongs to, int64 [total].

    >>> segment_ids([2, 1], torch.device("cpu")).tolist()
    [0, 0, 1]
    """
    counts = torch.tensor(lengths, device=device)
    return torch.repeat_interleave(counts, output_size=sum(lengths))


def offsets(lengths: Sequence[int]) -> list[int]:
    """First row of each segment, and the total last.

    >>> offsets([2, 1])
    [0, 2, 3]
    """
    rows = [0]
    for length in lengths:
        rows.append(rows[-1] + length)
    return rows


def is_uniform(lengths: Sequence[int]) -> bool:
    """Whether all segments have one length, so that a reshape stands for padding."""
    return min(lengths) == max(lengths)


def real_rows(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Which cells of the padded layout hold a row, bool [segments, longest]."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(max(lengths), device=device) < counts[:, None]


def cells(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Cell of each row in the padded layout, counted through, int64 [total].

    >>> cells([2, 1], torch.device("cpu")).tolist()
    [0, 1, 2]
    >>> cells([1, 2], torch.device("cpu")).tolist()
    [0, 2, 3]
    """
    ids, longest = segment_ids(lengths, device), max(lengths)
    skipped = torch.tensor([longest * row - first for row, first in enumerate(offsets(lengths)[:-1])], device=device)
    return torch.arange(len(ids), device=device) + skipped[ids]


def pad(rows: Tensor, lengths: Sequence[int], fill: float = 0.0) -> Tensor:
    """Spread packed rows to [segments, longest, ...], cells without a row hold `fill`.

    >>> pad(torch.tensor([1.0, 2.0, 3.0]), [2, 1]).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    if is_uniform(lengths):
        return rows.unflatten(0, (len(lengths), lengths[0]))
    empty = rows.new_full((len(lengths) * max(lengths), *rows.shape[1:]), fill)
    return empty.index_copy_(0, cells(lengths, rows.device), rows).unflatten(0, (len(lengths), -1))


def unpad(padded: Tensor, lengths: Sequence[int]) -> Tensor:
    """Gather the rows of `pad` again, [total, ...]."""
    if is_uniform(lengths):
        return padded[:, : lengths[0]].flatten(0, 1)
    return padded[:, : max(lengths)].flatten(0, 1).index_select(0, cells(lengths, padded.device))


def rows_of(chosen: Tensor, number: int) -> Tensor:
    """Rows where `chosen` [total] is true, int64 [number]; as `nonzero`, but without waiting for the device.

    >>> rows_of(torch.tensor([False, True, True]), 2).tolist()
    [1, 2]
    """
    rows = torch.arange(len(chosen), device=chosen.device)
    targets = torch.where(chosen, chosen.cumsum(0) - 1, number)  # the others share a place behind all
    return rows.new_zeros(number + 1).scatter_(0, targets, rows)[:number]


def interleave(parts: Sequence[Tensor], lengths: Sequence[Sequence[int]]) -> Tensor:
    """Join packed tensors sample by sample: first part's rows, then the second's, ...

    >>> interleave([torch.tensor([1, 2]), torch.tensor([7, 8, 9])], [[1, 1], [2, 1]]).tolist()
    [1, 7, 8, 2, 9]
    """
    return torch.cat(list(parts))[interleaving(lengths, parts[0].device)]


def interleaving(lengths: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Which row of the parts, one behind the other, stands at each place once they are interleaved.

    >>> interleaving([[1, 1], [2, 1]], torch.device("cpu")).tolist()
    [0, 2, 3, 1, 4]
    """
    return torch.argsort(torch.cat([segment_ids(part, device) for part in lengths]), stable=True)


def inverted(order: Tensor) -> Tensor:
    """Where each row stands in an order of all rows, int64 [total].

    >>> inverted(torch.tensor([2, 0, 1])).tolist()
    [1, 2, 0]
    """
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
