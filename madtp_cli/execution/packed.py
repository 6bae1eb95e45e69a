"""Packed tokens: all samples of a batch in one tensor, without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from madtp_cli.execution import row_rounding
from madtp_cli.pruning import segments


@dataclass(frozen=True)
class Packed:
    """Tokens of a batch, sample after sample.

    Attributes:
        data: [total, width].
        lengths: Tokens of each sample; they sum to `total`.
        sizes: Number of original tokens that each token stands for, [total]; None if all stand for one.
        exact: Whether matrix products must have exactly the rows of the tokens; see `apply_rowwise`.
        protected: Which tokens are never pruned, bool [total]; None if nothing prunes them.
        protected_counts: Protected tokens of each sample.
    """

    data: Tensor
    lengths: list[int]
    sizes: Tensor | None = None
    exact: bool = False
    protected: Tensor | None = None
    protected_counts: list[int] | None = None

    def __post_init__(self) -> None:
        if sum(self.lengths) != len(self.data):
            raise ValueError(f"lengths sum to {sum(self.lengths)}, but there are {len(self.data)} tokens")
        if self.protected is not None and self.protected_counts is None:
            counts = segments.pad(self.protected, self.lengths).sum(1).tolist()
            object.__setattr__(self, "protected_counts", counts)

    def replace(self, data: Tensor) -> Packed:
        """Return the same tokens with other values, [total, any]."""
        return replace(self, data=data)

    def protect_ends(self, *, first: bool = True, last: bool = False) -> Packed:
        """Protect the first token of each sample, the last one, or both."""
        lengths, device = self.lengths, self.data.device
        index = segments.index_in_segment(lengths, device)
        protected = index == 0 if first else torch.zeros_like(index, dtype=torch.bool)
        if last:
            protected = protected | (
                index == torch.tensor(lengths, device=device)[segments.segment_ids(lengths, device)] - 1
            )
        counts = [min(length, first + last) for length in lengths]
        return replace(self, protected=protected, protected_counts=counts)

    def apply_rowwise(self, module: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return `module(rows)` for rows of tokens.

        The module must treat each row independently: rows may be added where that is faster for ragged batches.
        """
        return module(rows) if self.exact else row_rounding.by_row(module, rows, self.lengths)

    def first(self) -> Tensor:
        """Return each sample's first token, [batch, width]."""
        return self.data[torch.tensor(segments.offsets(self.lengths)[:-1], device=self.data.device)]

    def last(self) -> Tensor:
        """Return each sample's last token, [batch, width]."""
        return self.data[torch.tensor(segments.offsets(self.lengths)[1:], device=self.data.device) - 1]

    def one_row_each(self, row: Tensor) -> Packed:
        """Return packed tokens with the same one token, [1, width], for each sample."""
        return Packed(row.expand(len(self.lengths), -1), [1] * len(self.lengths), exact=self.exact)

    def softmax(self, logits: Tensor) -> Tensor:
        """Return the softmax of logits, [total, any], over the tokens of each sample, in float32.

        A token counts as many times as its size.
        """
        logits = logits.float() if self.sizes is None else logits.float() + self.sizes.log()[:, None]
        padded = segments.pad(logits, self.lengths, float("-inf")).softmax(1)
        return segments.unpad(padded, self.lengths)

    def part(self, samples: slice) -> Packed:
        """Return some consecutive samples."""
        offsets = segments.offsets(self.lengths)
        start, stop, _ = samples.indices(len(self.lengths))
        rows = slice(offsets[start], offsets[stop])
        return replace(
            self,
            data=self.data[rows],
            lengths=self.lengths[start:stop],
            sizes=None if self.sizes is None else self.sizes[rows],
            protected=None if self.protected is None else self.protected[rows],
            protected_counts=None if self.protected_counts is None else self.protected_counts[start:stop],
        )

    def select(self, samples: Sequence[int]) -> Packed:
        """Return the samples with these numbers, in this order; a number may occur more than once."""
        parts = [self.part(slice(sample, sample + 1)) for sample in samples]
        sizes = None if self.sizes is None else torch.cat([part.sizes for part in parts if part.sizes is not None])
        return Packed(torch.cat([part.data for part in parts]), [part.lengths[0] for part in parts], sizes, self.exact)

    def group_by_memory(self, memory: Packed) -> Packed:
        """Return the same texts as one segment per sample of `memory`, for cross-attention.

        Every sample of the memory has the same number of texts, and these stand together.
        """
        texts = len(self.lengths) // len(memory.lengths)
        starts = range(0, len(self.lengths), texts)
        return Packed(self.data, [sum(self.lengths[start : start + texts]) for start in starts], exact=self.exact)


def pack(padded: Tensor, mask: Tensor | None = None, *, exact: bool = False, protected: Tensor | None = None) -> Packed:
    """Pack padded tokens.

    Args:
        padded: [batch, tokens, width].
        mask: bool [batch, tokens]; true for real tokens. None if all are real.
        exact: See `Packed`.
        protected: bool [batch, tokens]; true for tokens that are never pruned. For the first or the last token
            `Packed.protect_ends` is faster.
    """
    batch, tokens = (int(size) for size in padded.shape[:2])  # under tracing sizes are tensors
    if mask is None:
        lengths = [tokens] * batch
        return Packed(
            padded.flatten(0, 1), lengths, None, exact, None if protected is None else protected.flatten(0, 1)
        )
    mask = mask.bool()
    chosen = None if protected is None else protected[mask]
    return Packed(padded[mask], mask.sum(1).tolist(), None, exact, chosen)
