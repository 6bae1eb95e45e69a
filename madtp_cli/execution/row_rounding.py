"""Rounding the rows of matrix products up, for bfloat16 on a CPU.

There oneDNN compiles a kernel for every new shape. This takes 0.5 to 2 ms, as long as the products of a pruned sample,
and ragged samples have new shapes all the time. So the number of rows is rounded up to numbers that recur, at which the
kernels are also fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import segments

#: The tokens of a sample in attention and the rows of a batch are rounded up to a multiple of this number.
ROUNDED = 16


def compiles(rows: Tensor) -> bool:
    """Return whether a matrix product of these rows is compiled for its shape.

    >>> compiles(torch.ones(1)), compiles(torch.ones(1).bfloat16())
    (False, True)
    """
    if rows.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return rows.dtype == torch.bfloat16


def rounded(number: int) -> int:
    """Return the next multiple of `ROUNDED`.

    >>> rounded(33), rounded(48)
    (48, 48)
    """
    return -(-number // ROUNDED) * ROUNDED


def by_row(module: Callable[[Tensor], Tensor], rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return `module(rows)`, with rows added during the computation where this makes the shape recur.

    Samples of the same length need no added rows, because their shape recurs anyway.

    Args:
        module: Treats each row independently.
        rows: [total, width].
        lengths: Rows of each sample.
    """
    if segments.is_uniform(lengths) or not compiles(rows):
        return module(rows)
    missing = rounded(len(rows)) - len(rows)
    return module(functional.pad(rows, (0, 0, 0, missing)))[: len(rows)] if missing else module(rows)
