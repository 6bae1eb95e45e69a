"""Rows added to a matrix product so that its shape recurs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from madtp_cli.execution import row_rounding
from madtp_cli.execution.packed import Packed


class PaddedBlockInputs(nn.Linear):
    """Takes down how many rows it was given."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.rows: list[int] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(rows))
        return super().forward(rows)


@pytest.mark.parametrize(
    ("lengths", "dtype", "exact", "rows"),
    [
        ([5, 12], torch.bfloat16, False, 32),
        ([5, 11], torch.bfloat16, False, 16),
        ([5, 12], torch.float32, False, 17),
        ([5, 12], torch.bfloat16, True, 17),
        ([17], torch.bfloat16, False, 17),
    ],
)
def test_only_ragged_bfloat16_rows_are_rounded_up(
    lengths: list[int], dtype: torch.dtype, exact: bool, rows: int
) -> None:
    """A dense batch has one shape; float32 is not compiled; who counts multiply-adds wants no others."""
    module = PaddedBlockInputs().to(dtype)
    data = torch.randn(sum(lengths), 3, dtype=dtype, requires_grad=True)
    out = Packed(data, lengths, exact=exact).apply_rowwise(module, data)
    assert module.rows == [rows]
    torch.testing.assert_close(out, module(data))
    out.float().sum().backward()
    assert data.grad is not None
    torch.testing.assert_close(data.grad, module.weight.sum(0).expand_as(data), rtol=0.02, atol=0.02)


def test_autocast_to_bfloat16_rounds_too() -> None:
    """There rows are float32 and the product is not."""
    module, data = PaddedBlockInputs(), torch.randn(17, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = row_rounding.by_row(module, data, [5, 12])
    assert (module.rows, out.shape, out.dtype) == ([32], (17, 2), torch.bfloat16)
