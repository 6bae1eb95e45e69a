"""Segments of a packed tensor [total, ...]: the rows of each sample stand together.

Every function takes the `lengths` of the segments in packing order; they sum to `total`. No function mixes rows of
different segments, so no sample depends on the other samples of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def segment_ids(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Return the segment that each row belongs to, int64 [total].

    >>> segment_ids([2, 1], torch.device("cpu")).tolist()
    [0, 0, 1]
    """
    counts = torch.tensor(lengths, device=device)
    return torch.repeat_interleave(counts, output_size=sum(lengths))


def index_in_segment(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Return the index of each row within its segment, int64 [total].

    >>> index_in_segment([2, 1], torch.device("cpu")).tolist()
    [0, 1, 0]
    """
    ids, first = segment_ids(lengths, device), torch.tensor(offsets(lengths), device=device)
    return torch.arange(len(ids), device=device) - first[ids]


def offsets(lengths: Sequence[int]) -> list[int]:
    """Return the first row of each segment, and the total last.

    >>> offsets([2, 1])
    [0, 2, 3]
    """
    rows = [0]
    for length in lengths:
        rows.append(rows[-1] + length)
    return rows


def is_uniform(lengths: Sequence[int]) -> bool:
    """Return whether all segments have the same length, so a reshape can replace padding."""
    return min(lengths) == max(lengths)


def real_rows(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Return which cells of the padded layout hold a row, bool [segments, longest]."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(max(lengths), device=device) < counts[:, None]


def cells(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Return the cell of each row in the flattened padded layout, int64 [total].

    >>> cells([2, 1], torch.device("cpu")).tolist()
    [0, 1, 2]
    >>> cells([1, 2], torch.device("cpu")).tolist()
    [0, 2, 3]
    """
    ids, longest = segment_ids(lengths, device), max(lengths)
    skipped = torch.tensor([longest * row - first for row, first in enumerate(offsets(lengths)[:-1])], device=device)
    return torch.arange(len(ids), device=device) + skipped[ids]


def pad(rows: Tensor, lengths: Sequence[int], fill: float = 0.0) -> Tensor:
    """Copy packed rows to [segments, longest, ...]; cells without a row hold `fill`.

    >>> pad(torch.tensor([1.0, 2.0, 3.0]), [2, 1]).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    if is_uniform(lengths):
        return rows.unflatten(0, (len(lengths), lengths[0]))
    empty = rows.new_full((len(lengths) * max(lengths), *rows.shape[1:]), fill)
    return empty.index_copy_(0, cells(lengths, rows.device), rows).unflatten(0, (len(lengths), -1))


def unpad(padded: Tensor, lengths: Sequence[int]) -> Tensor:
    """Undo `pad`: return the rows, [total, ...]."""
    if is_uniform(lengths):
        return padded[:, : lengths[0]].flatten(0, 1)
    return padded[:, : max(lengths)].flatten(0, 1).index_select(0, cells(lengths, padded.device))


def rows_of(chosen: Tensor, number: int) -> Tensor:
    """Return the rows where `chosen` [total] is true, int64 [number], without waiting for the device as `nonzero` does.

    >>> rows_of(torch.tensor([False, True, True]), 2).tolist()
    [1, 2]
    """
    rows = torch.arange(len(chosen), device=chosen.device)
    targets = torch.where(chosen, chosen.cumsum(0) - 1, number)  # the other rows share an extra cell at the end
    return rows.new_zeros(number + 1).scatter_(0, targets, rows)[:number]
