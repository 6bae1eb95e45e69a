"""Packed tokens: all samples of a batch in one tensor, without padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from madtp_cli.execution import row_rounding
from madtp_cli.pruning import segments


@dataclass(frozen=True)
class Packed:
    """Tokens of a batch, sample after sample.

    `data` is [total, width]; `lengths` has each sample's number of tokens and sums to total.
    `sizes` [total] says how many original tokens each one stands for; None where all stand for one.
    `exact` forbids that a matrix product be given rows that are not there, see `through`.
    """

    data: Tensor
    lengths: list[int]
    sizes: Tensor | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if sum(self.lengths) != len(self.data):
            raise ValueError(f"lengths sum to {sum(self.lengths)}, but there are {len(self.data)} tokens")

    def replace(self, data: Tensor) -> Packed:
        """The same segments around other rows."""
        return replace(self, data=data)

    def apply_rowwise(self, module: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """`module(rows)` of a row a token, for a module that treats each row alike; fast where the batch is ragged."""
        return module(rows) if self.exact else row_rounding.by_row(module, rows, self.lengths)

    def first(self) -> Tensor:
        """Each sample's first token, [batch, width]."""
        return self.data[torch.tensor(segments.offsets(self.lengths)[:-1], device=self.data.device)]

    def last(self) -> Tensor:
        """Each sample's last token, [batch, width]."""
        return self.data[torch.tensor(segments.offsets(self.lengths)[1:], device=self.data.device) - 1]

    def part(self, samples: slice) -> Packed:
        """Some consecutive samples."""
        rows = segments.offsets(self.lengths)
        start, stop, _ = samples.indices(len(self.lengths))
        own = slice(rows[start], rows[stop])
        sizes = None if self.sizes is None else self.sizes[own]
        return Packed(self.data[own], self.lengths[start:stop], sizes, self.exact)

    def group_by_memory(self, memory: Packed) -> Packed:
        """As many segments as `memory` has: texts that look at one memory lie together, and so ask as one."""
        shared = len(self.lengths) // len(memory.lengths)
        starts = range(0, len(self.lengths), shared)
        lengths = [sum(self.lengths[start : start + shared]) for start in starts]
        return Packed(self.data, lengths, exact=self.exact)


def pack(padded: Tensor, mask: Tensor | None = None, *, exact: bool = False) -> Packed:
    """Pack [batch, tokens, width]; `mask` [batch, tokens] is true where a token is real; `exact` as in `Packed`."""
    batch, tokens = (int(size) for size in padded.shape[:2])  # under tracing sizes are tensors
    if mask is None:
        return Packed(padded.flatten(0, 1), [tokens] * batch, exact=exact)
    mask = mask.bool()
    return Packed(padded[mask], mask.sum(1).tolist(), exact=exact)
