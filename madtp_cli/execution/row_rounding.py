"""Shapes of matrix products in bfloat16 on a CPU, for which oneDNN compiles a kernel each, the first time it sees one.

That takes 0.5 to 2 ms, as long as a pruned sample's products themselves, and ragged samples bring new shapes all the
time. So their rows are rounded up to numbers that recur, which are also those that its kernels are fastest at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from madtp_cli.pruning import segments

#: A sample's tokens in attention become a multiple of it, and so do the rows of a batch.
ROUNDED = 16


def compiles(rows: Tensor) -> bool:
    """Whether a matrix product of such rows is compiled for its shape.

    >>> compiles(torch.ones(1)), compiles(torch.ones(1).bfloat16())
    (False, True)
    """
    if rows.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return rows.dtype == torch.bfloat16


def rounded(number: int) -> int:
    """The next multiple.

    >>> rounded(33), rounded(48)
    (48, 48)
    """
    return -(-number // ROUNDED) * ROUNDED


def by_row(module: Callable[[Tensor], Tensor], rows: Tensor, lengths: Sequence[int]) -> Tensor:
    """`module(rows)` for a module that treats each row alike, with rows added where that makes its shape recur.

    Samples of one length recur as they are.
    """
    if segments.is_uniform(lengths) or not compiles(rows):
        return module(rows)
    spare = rounded(len(rows)) - len(rows)
    return module(functional.pad(rows, (0, 0, 0, spare)))[: len(rows)] if spare else module(rows)
