"""Gather the samples of all processes of a run, with gradients, for losses that compare samples with each other.

In a single process every function returns its argument. In several processes each one has the gradient of its own share
of the loss; the sum of the gradients over the processes is the gradient of the loss of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.nn import functional

from madtp_cli.execution.packed import Packed


def alone() -> bool:
    """Return whether this is the only process of the run."""
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1


def global_mean(mean: Tensor, items: int) -> Tensor:
    """Return the mean over the items of all processes.

    Args:
        mean: The mean over the items of this process, of any shape.
        items: How many these are, at least 1 in all processes together.

    Returns:
        The value of the global mean with the gradient of this process's share in it.
    """
    if alone():
        return mean
    share = mean * (items / _sum(torch.tensor(float(items), device=mean.device)))
    return share + (_sum(share.detach().clone()) - share.detach())


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, [all rows, ...], those of process 0 first; their numbers may differ."""
    return rows if alone() else cast(Tensor, _GatherRows.apply(rows, _counts(len(rows), rows.device)))


def first_row(rows: int, device: torch.device) -> int:
    """Return the position of this process's first row in what `gather_rows` returns."""
    return 0 if alone() else sum(_counts(rows, device)[: distributed.get_rank()])


def gather_padded(rows: Tensor, padding: int = 0) -> Tensor:
    """Return the rows [rows, length] of all processes, padded to the same length."""
    if alone():
        return rows
    longest = max(_counts(rows.shape[1], rows.device))
    return gather_rows(functional.pad(rows, (0, longest - rows.shape[1]), value=padding))


def gather_packed(tokens: Packed) -> Packed:
    """Return the tokens of the samples of all processes; which of them are protected is left out."""
    if alone():
        return tokens
    lengths = gather_rows(torch.tensor(tokens.lengths, device=tokens.data.device)).tolist()
    sizes = None if tokens.sizes is None else gather_rows(tokens.sizes)
    return Packed(gather_rows(tokens.data), lengths, sizes, tokens.exact)


def similarities(compare: Callable[[Tensor, Tensor], Tensor], images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """Compare the samples of this process with those of all processes.

    Args:
        compare: Returns the similarities [images, texts] of embeddings.
        images, texts: Embeddings of this process's samples, [samples, width].

    Returns:
        Its images with all texts, [samples, all samples], and its texts with all images, [samples, all samples].
    """
    if alone():
        similarity = compare(images, texts)
        return similarity, similarity.T
    return compare(images, gather_rows(texts)), compare(gather_rows(images), texts).T


def fewest(number: int, device: torch.device) -> int:
    """Return the smallest of the numbers of all processes."""
    return number if alone() else min(_counts(number, device))


def total(number: int, device: torch.device) -> int:
    """Return the sum of the numbers of all processes."""
    return number if alone() else sum(_counts(number, device))


class _GatherRows(torch.autograd.Function):
    """Gather rows; the gradient of a row is the sum of its gradients in all processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:number] for part, number in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        first = sum(ctx.counts[: distributed.get_rank()])
        return _sum(gradients[0].contiguous())[first : first + ctx.counts[distributed.get_rank()]], None


def _counts(number: int, device: torch.device) -> list[int]:
    """Return the number of each process."""
    mine = torch.tensor([number], device=device)
    numbers = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(numbers, mine)
    return [int(one) for one in numbers]


def _sum(value: Tensor) -> Tensor:
    """Return the sum over all processes, in place."""
    distributed.all_reduce(value)
    return value
