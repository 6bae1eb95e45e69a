"""Attention within segments, against attention of one sample after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from madtp_cli.execution import attention, grouped_attention
from madtp_cli.execution import statistics as statistics_module
from madtp_cli.execution.attention import Attention, Backend, attend
from madtp_cli.execution.statistics import Statistics

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)
STATISTICS = Statistics()
BACKENDS: list[Backend] = ["loop", "padded", "auto", "varlen"]


def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: Tensor,
    key_starts: Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float,
    window_size: tuple[int, int],
) -> Tensor:
    """`varlen_attn` as its documentation has it, without its kernel, which only CUDA has."""
    assert starts.dtype == key_starts.dtype == torch.int32
    assert q.shape[-1] % 8 == 0
    assert q.shape[-1] == k.shape[-1] == v.shape[-1]
    assert longest == starts.diff().max()
    assert longest_key == key_starts.diff().max()
    parts = []
    for (q0, q1), (k0, k1) in zip(pairwise(starts.tolist()), pairwise(key_starts.tolist()), strict=True):
        scores = torch.einsum("qhw,khw->hqk", q[q0:q1].double(), k[k0:k1].double()) * scale
        if window_size == (-1, 0):
            scores = scores + torch.full_like(scores, float("-inf")).triu(1)
        parts.append(torch.einsum("hqk,khw->qhw", scores.softmax(-1), v[k0:k1].double()).to(q.dtype))
    return torch.cat(parts)


@pytest.fixture(autouse=True)
def _no_cuda_needed(monkeypatch) -> None:
    monkeypatch.setattr(attention, "varlen_attn", flash)


def drawn(lengths: list[int], seed: int, heads: int = 2, width: int = 3) -> Tensor:
    """Packed random heads, peaked enough that a swapped axis shows."""
    return 2 * torch.randn(sum(lengths), heads, width, generator=torch.Generator().manual_seed(seed))


def plain(
    q: Tensor, k: Tensor, v: Tensor, statistics: Statistics, *, causal: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """One sample by the definition, query after query: output, the read-out token's row, attention received."""
    queries, keys = len(q), len(k)
    probabilities = torch.zeros(queries, q.shape[1], keys)
    for query in range(queries):
        seen = query + 1 if causal else keys
        probabilities[query, :, :seen] = torch.einsum("hw,khw->hk", q[query] / q.shape[-1] ** 0.5, k[:seen]).softmax(-1)
    received = torch.zeros(keys)
    prunable = range(statistics.leading, queries - statistics.trailing)
    some = min(statistics.queries, len(prunable)) or len(prunable)
    asked = [prunable[(2 * number + 1) * len(prunable) // (2 * some)] for number in range(some)]
    for key in range(keys):
        votes = [probabilities[query, :, key].max() for query in asked if not causal or query >= key]
        if votes:
            received[key] = torch.stack(votes).mean() if causal else torch.stack(votes).sum()
    readout = probabilities[queries - 1 if statistics.trailing else 0]
    return torch.einsum("qhk,khw->qhw", probabilities, v), readout.T, received


def by_sample(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: list[int],
    keys: list[int],
    statistics: Statistics = STATISTICS,
    *,
    causal: bool = False,
) -> list[Tensor]:
    """`plain` for each sample, packed again."""
    samples = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
    parts = [plain(*rows, statistics, causal=causal) for rows in samples]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), st.integers(0, 10_000),
       st.sampled_from(BACKENDS))  # fmt: skip
def test_each_query_sees_its_own_samples_keys_and_no_other(
    lengths: list[tuple[int, int]], seed: int, backend: Backend
) -> None:
    """As in cross-attention, where an image has as many tokens as its pruning left."""
    queries, keys = [q for q, _ in lengths], [k for _, k in lengths]
    q, k, v = drawn(queries, seed), drawn(keys, seed + 1), drawn(keys, seed + 2)
    before = [rows.clone() for rows in (q, k, v)]
    seen = attend(q, k, v, queries, keys, backend=backend)
    torch.testing.assert_close(seen.output, by_sample(q, k, v, queries, keys)[0], rtol=1e-5, atol=1e-5)
    assert (seen.readout, seen.received) == (None, None)
    assert all(torch.equal(*pair) for pair in zip(before, (q, k, v), strict=True))


@given(LENGTHS, st.integers(0, 10_000), st.sampled_from(BACKENDS), st.booleans())
def test_a_key_of_size_three_is_attended_to_as_three_keys(
    lengths: list[int], seed: int, backend: Backend, asked: bool
) -> None:
    """Proportional attention by its definition: the same output as with every key repeated."""
    q, k, v = (drawn(lengths, seed + part) for part in range(3))
    sizes = torch.randint(1, 4, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    statistics = Statistics() if asked else None
    seen = attend(q, k, v, lengths, lengths, statistics, backend, sizes.float())
    repeated = [int(part.sum()) for part in sizes.split(lengths)]
    keys, values = (rows.repeat_interleave(sizes, 0) for rows in (k, v))
    expected = attend(q, keys, values, lengths, repeated, backend="loop").output
    torch.testing.assert_close(seen.output, expected, rtol=1e-5, atol=1e-5)


@given(LENGTHS, st.integers(0, 10_000), st.sampled_from(BACKENDS), st.integers(0, 2), st.integers(0, 2),
       st.sampled_from([0, 1, 3, 20]), st.booleans())  # fmt: skip
def test_statistics_are_those_of_each_sample_alone(
    lengths: list[int], seed: int, backend: Backend, leading: int, trailing: int, queries: int, causal: bool
) -> None:
    """Padded queries must receive nothing and give nothing, pinned ones not vote; to be seen by few costs nothing."""
    q, k, v = (drawn(lengths, seed + part) for part in range(3))
    statistics = Statistics(leading, trailing, queries)
    seen = attend(q, k, v, lengths, lengths, statistics, backend, causal=causal)
    output, readout, received = by_sample(q, k, v, lengths, lengths, statistics, causal=causal)
    assert seen.readout is not None
    assert seen.received is not None
    torch.testing.assert_close(seen.output, output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.readout, readout, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.received, received, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 40, 100])
@pytest.mark.parametrize("lengths", [[7, 7], [3, 9, 1]])
@pytest.mark.parametrize("trailing", [0, 1])
def test_chunks_of_queries_change_nothing(monkeypatch, at_once: int, lengths: list[int], trailing: int) -> None:
    """Long sequences are taken in pieces to spare memory; a query that is read out is in one piece only."""
    q, k, v = (drawn(lengths, part) for part in range(3))
    statistics = Statistics(1, trailing)
    whole = attend(q, k, v, lengths, lengths, statistics, "padded", causal=trailing > 0)
    monkeypatch.setattr(statistics_module, "PROBABILITIES_AT_ONCE", at_once)
    pieces = attend(q, k, v, lengths, lengths, statistics, "padded", causal=trailing > 0)
    for one, other in zip(vars(whole).values(), vars(pieces).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("start_cost", "calls"), [(0, 3), (10**9, 1)])
def test_auto_pads_while_that_is_cheaper_than_another_call(monkeypatch, start_cost: int, calls: int) -> None:
    """Dozens of short samples would otherwise wait on Python; a long one beside a short one would pay for air."""
    monkeypatch.setattr(attention, "START_COST", start_cost)
    lengths = [3, 9, 1]
    assert len(list(attention._groups(lengths, lengths, 6, "auto"))) == calls
    assert len(list(attention._groups([4, 4], [9, 9], 6, "auto"))) == 1


@pytest.mark.parametrize("statistics", [None, Statistics()])
def test_gradients_do_not_depend_on_how_samples_are_grouped(statistics: Statistics | None) -> None:
    """Training uses "auto", which may choose either for each layer."""
    lengths, grads = [5, 2, 4], []
    for backend in BACKENDS:
        rows = [drawn(lengths, part).requires_grad_() for part in range(3)]
        q, k, v = rows
        attend(q, k, v, lengths, lengths, statistics, backend).output.square().sum().backward()
        grads.append([row.grad for row in rows])
    for other in grads[1:]:
        for one, another in zip(grads[0], other, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-4)


def test_statistics_are_float32_in_half_precision() -> None:
    """A sum over hundreds of queries in bfloat16 would round neighbours together."""
    lengths = [5, 2]
    q, k, v = (drawn(lengths, part).bfloat16() for part in range(3))
    seen = attend(q, k, v, lengths, lengths, Statistics())
    assert seen.output.dtype == torch.bfloat16
    assert seen.readout is not None
    assert seen.received is not None
    assert (seen.readout.dtype, seen.received.dtype) == (torch.float32, torch.float32)


class Products(TorchDispatchMode):
    """Takes down the shape of every matrix product, [batch, rows, columns]."""

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
    """Every new shape is compiled; what is added to reach an old one must not show, in gradients either."""
    monkeypatch.setattr(attention, "START_COST", start_cost)
    lengths, asked = [21, 5, 33], Statistics(queries=8)
    sizes = torch.arange(1.0, 60.0) if sized else None

    def attended(backend: Backend, dtype: torch.dtype = torch.bfloat16) -> tuple[Attention, list[Tensor], Products]:
        drawings = (drawn(lengths, seed, width=4).bfloat16() for seed in range(3))
        q, k, v = (rows.to(dtype).requires_grad_() for rows in drawings)
        with Products() as products:
            given = attend(q, k, v, lengths, lengths, asked, backend, sizes, causal=causal)
        given.output.float().square().sum().backward()
        return given, [one.grad for one in (q, k, v) if one.grad is not None], products

    ours, slopes, products = attended(backend)
    alone, alone_slopes, each = attended("loop")
    few = (9, 5)  # queries of the second look: the read-out one and 8, or as many as there are
    looks = [shape for shape in products.shapes if shape[1] in few]
    assert (len(products.shapes), len(looks)) == (3 * calls, calls)
    assert {rows % 16 for _, rows, _ in products.shapes if rows not in few} == {0}
    assert {columns % 16 for _, _, columns in products.shapes if columns != 4} == {0}
    assert {shape[1:] for shape in each.shapes if shape[1] != 9} == {(n, m) for n in lengths for m in (n, 4)}
    exact, true_slopes, _ = attended("loop", torch.float32)
    given = zip([*vars(ours).values(), *slopes], [*vars(alone).values(), *alone_slopes], strict=True)
    for (one, other), true in zip(given, [*vars(exact).values(), *true_slopes], strict=True):
        off, usual = (one - true).abs().mean(), (other - true).abs().mean()
        assert off <= 1.1 * usual  # what one call a sample loses by rounding, and no more
        assert off < 0.1 * true.abs().mean()


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6), st.integers(0, 10_000),
       st.sampled_from([0, 1_000, 10**9]))  # fmt: skip
def test_groups_give_each_sample_its_own_attention(
    lengths: list[tuple[int, int]], seed: int, start_cost: float
) -> None:
    """What the bfloat16 path does, checked in float32, where a slip would not pass for rounding."""
    queries, keys = [q for q, _ in lengths], [k for _, k in lengths]
    q, k, v = drawn(queries, seed), drawn(keys, seed + 1), drawn(keys, seed + 2)
    groups = grouped_attention.alike(queries, keys, 6, start_cost)
    assert sorted(sample for group in groups for sample in group) == list(range(len(lengths)))
    (output,) = grouped_attention.attended(q, k, v, queries, keys, None, groups, causal=False)
    torch.testing.assert_close(output, by_sample(q, k, v, queries, keys)[0], rtol=1e-5, atol=1e-5)


def test_a_second_look_pads_no_product() -> None:
    """A sample of 300 tokens beside others of 5 must not make theirs as dear."""
    lengths = [5, 300, 5]
    q, k, v = (drawn(lengths, seed, width=4) for seed in range(3))
    with Products() as products:
        attend(q, k, v, lengths, lengths, Statistics(queries=8))
    assert [shape[1:] for shape in products.shapes] == [(5, 5), (9, 300), (5, 5)]


def test_equal_lengths_are_not_rounded() -> None:
    """A dense model's one shape is compiled once, and padding would make it slower."""
    lengths = [21, 21]
    q, k, v = (drawn(lengths, seed, width=4).bfloat16() for seed in range(3))
    with Products() as products:
        attend(q, k, v, lengths, lengths)
    assert [shape[1:] for shape in products.shapes] == [(21, 21), (21, 4)]


@pytest.mark.parametrize("size", [1.0, 3.0, 577.0])
def test_flash_hears_of_sizes_to_more_than_half_precision(size: float) -> None:
    """Rounded once, log 577 in bfloat16 would be off by 0.02, hence attention by 2 %; told in two parts it is not."""
    key, query = torch.zeros(2, 1, 8, dtype=torch.bfloat16), torch.zeros(1, 1, 8, dtype=torch.bfloat16)
    value = torch.tensor([0.0, 1.0]).bfloat16()[:, None, None].expand(2, 1, 8)
    seen = attend(query, key, value.double(), [1], [2], backend="varlen", sizes=torch.tensor([1.0, size]))
    assert seen.output[0, 0, 0].item() == pytest.approx(size / (1 + size), rel=4e-3)


def test_cuda_takes_flash_in_half_precision_and_pads_in_float32() -> None:
    """Flash has no float32; starting dozens of small calls would leave a GPU waiting. A CPU weighs by cost."""

    class Elsewhere:
        device = torch.device("cuda")

        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

    for dtype, backend in ((torch.bfloat16, "varlen"), (torch.float16, "varlen"), (torch.float32, "padded")):
        assert attention.chosen("auto", Elsewhere(dtype)) == backend  # type: ignore[arg-type]
        assert attention.chosen("loop", Elsewhere(dtype)) == "loop"  # type: ignore[arg-type]
    assert attention.chosen("auto", torch.ones(1)) == "auto"
