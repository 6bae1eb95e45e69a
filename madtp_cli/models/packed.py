"""Packed tokens: all samples of a batch in one tensor, without padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from madtp_cli.pruning import segments


@dataclass(frozen=True)
class Packed:
    """Tokens of a batch, sample after sample.

    `data` is [total, width]; `lengths` has each sample's number of tokens and sums to total.
    `sizes` [total] says how many original tokens each one stands for; None where all stand for one.
    """

    data: Tensor
    lengths: list[int]
    sizes: Tensor | None = None

    def __post_init__(self) -> None:
        if sum(self.lengths) != len(self.data):
            raise ValueError(f"lengths sum to {sum(self.lengths)}, but there are {len(self.data)} tokens")

    def replace(self, data: Tensor) -> Packed:
        """The same segments around other rows."""
        return Packed(data, self.lengths, self.sizes)

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
        return Packed(self.data[own], self.lengths[start:stop], None if self.sizes is None else self.sizes[own])

    def beside(self, memory: Packed) -> Packed:
        """As many segments as `memory` has: texts that look at one memory lie together, and so ask as one."""
        shared = len(self.lengths) // len(memory.lengths)
        starts = range(0, len(self.lengths), shared)
        return Packed(self.data, [sum(self.lengths[start : start + shared]) for start in starts])


def pack(padded: Tensor, mask: Tensor | None = None) -> Packed:
    """Pack [batch, tokens, width]; `mask` [batch, tokens] is true where a token is real."""
    batch, tokens = (int(size) for size in padded.shape[:2])  # under tracing sizes are tensors
    if mask is None:
        return Packed(padded.flatten(0, 1), [tokens] * batch)
    mask = mask.bool()
    return Packed(padded[mask], mask.sum(1).tolist())
