"""The matrix products of the attention: how many there are, and of which shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from madtp_cli.execution import attention
from madtp_cli.execution.attention import Attention, Backend, attend
from tests.attention_inputs import drawn, requested


def values(result: Attention) -> list[Tensor]:
    """Return the output and the statistics."""
    return [value for value in vars(result).values() if value is not None]


class Products(TorchDispatchMode):
    """Records the shape of every matrix product, [batch, rows, columns]."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.bmm.default:
            self.shapes.append(tuple(result.shape))
        return result


@pytest.mark.parametrize(("backend", "start_cost", "calls"), [("auto", 0, 3), ("auto", 25_000, 2), ("padded", 0, 1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sized", [False, True])
def test_ragged_bfloat16_products_come_in_few_shapes(
    monkeypatch, backend: Backend, start_cost: int, calls: int, causal: bool, sized: bool
) -> None:
    """Every new shape is compiled; added rows must change neither results nor gradients."""
    monkeypatch.setattr(attention, "START_COST", start_cost)
    lengths = [21, 5, 33]
    request = requested(lengths, 8)
    sizes = torch.arange(1.0, 60.0) if sized else None

    def attended(backend: Backend, dtype: torch.dtype = torch.bfloat16) -> tuple[Attention, list[Tensor], Products]:
        drawings = (drawn(lengths, seed, width=4).bfloat16() for seed in range(3))
        q, k, v = (rows.to(dtype).requires_grad_() for rows in drawings)
        with Products() as products:
            given = attend(q, k, v, lengths, lengths, request, backend, sizes, causal=causal)
        given.output.float().square().sum().backward()
        return given, [one.grad for one in (q, k, v) if one.grad is not None], products

    ours, slopes, products = attended(backend)
    alone, alone_slopes, each = attended("loop")
    few = (9, 5)  # sampled queries: the read-out query and 8 others, or all of a short sample
    sampled = [shape for shape in products.shapes if shape[1] in few]
    assert (len(products.shapes), len(sampled)) == (3 * calls, calls)
    assert {rows % 16 for _, rows, _ in products.shapes if rows not in few} == {0}
    assert {columns % 16 for _, _, columns in products.shapes if columns != 4} == {0}
    assert {shape[1:] for shape in each.shapes if shape[1] != 9} == {(n, m) for n in lengths for m in (n, 4)}
    exact, true_slopes, _ = attended("loop", torch.float32)
    given = zip([*values(ours), *slopes], [*values(alone), *alone_slopes], strict=True)
    for (one, other), true in zip(given, [*values(exact), *true_slopes], strict=True):
        off, usual = (one - true).abs().mean(), (other - true).abs().mean()
        assert off <= 1.1 * usual  # rounding loses no more than with one call per sample
        assert off < 0.1 * true.abs().mean()


def test_sampled_statistics_pad_no_product() -> None:
    """A sample of 300 tokens must not raise the cost of samples of 5 tokens."""
    lengths = [5, 300, 5]
    q, k, v = (drawn(lengths, seed, width=4) for seed in range(3))
    with Products() as products:
        attend(q, k, v, lengths, lengths, requested(lengths, 8))
    assert [shape[1:] for shape in products.shapes] == [(5, 5), (9, 300), (5, 5)]


def test_equal_lengths_are_not_rounded() -> None:
    """The single shape of a dense model is compiled once, and padding would make it slower."""
    lengths = [21, 21]
    q, k, v = (drawn(lengths, seed, width=4).bfloat16() for seed in range(3))
    with Products() as products:
        attend(q, k, v, lengths, lengths)
    assert [shape[1:] for shape in products.shapes] == [(21, 21), (21, 4)]
