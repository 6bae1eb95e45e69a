"""Attention within segments, compared with attention of each sample alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from madtp_cli.execution import attention, grouped_attention
from madtp_cli.execution import statistics as statistics_module
from madtp_cli.execution.attention import Backend, attend
from madtp_cli.execution.grouped_attention import PackedHeads
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.statistics import AttentionRequest, ReadOut
from tests.attention_inputs import drawn, request_for, requested

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)
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
    """Compute `varlen_attn` by its documentation; its kernel exists on CUDA only."""
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
    monkeypatch.setattr(attention, "varlen_attn", flash, raising=False)


def plain(
    q: Tensor, k: Tensor, v: Tensor, prunable: list[int], request: AttentionRequest, *, causal: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute one sample by the definition, query by query: output, read-out attention, received attention."""
    queries, keys = len(q), len(k)
    probabilities = torch.zeros(queries, q.shape[1], keys)
    for query in range(queries):
        seen = query + 1 if causal else keys
        probabilities[query, :, :seen] = torch.einsum("hw,khw->hk", q[query] / q.shape[-1] ** 0.5, k[:seen]).softmax(-1)
    received = torch.zeros(keys)
    some = min(request.queries or 0, len(prunable)) or len(prunable)
    chosen = [prunable[(2 * number + 1) * len(prunable) // (2 * some)] for number in range(some)]
    for key in range(keys):
        votes = [probabilities[query, :, key].max() for query in chosen if not causal or query >= key]
        if votes:
            received[key] = torch.stack(votes).mean() if causal else torch.stack(votes).sum()
    read_out = probabilities[queries - 1 if request.read_out == "last" else 0]
    return torch.einsum("qhk,khw->qhw", probabilities, v), read_out.T, received


def by_sample(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: list[int],
    keys: list[int],
    request: AttentionRequest | None = None,
    *,
    causal: bool = False,
) -> list[Tensor]:
    """Return `plain` of each sample, packed again."""
    request = request or requested(queries)
    prunable = [(~part).nonzero().flatten().tolist() for part in request.protected.split(queries)]
    samples = zip(q.split(queries), k.split(keys), v.split(keys), prunable, strict=True)
    parts = [plain(*rows, request, causal=causal) for rows in samples]
    return [torch.cat(part) for part in zip(*parts, strict=True)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), st.integers(0, 10_000),
       st.sampled_from(BACKENDS))  # fmt: skip
def test_each_query_sees_its_own_samples_keys_and_no_other(
    lengths: list[tuple[int, int]], seed: int, backend: Backend
) -> None:
    """As in cross-attention to images with different numbers of tokens."""
    queries, keys = [q for q, _ in lengths], [k for _, k in lengths]
    q, k, v = drawn(queries, seed), drawn(keys, seed + 1), drawn(keys, seed + 2)
    before = [rows.clone() for rows in (q, k, v)]
    seen = attend(q, k, v, queries, keys, backend=backend)
    torch.testing.assert_close(seen.output, by_sample(q, k, v, queries, keys)[0], rtol=1e-5, atol=1e-5)
    assert (seen.read_out, seen.received) == (None, None)
    assert all(torch.equal(*pair) for pair in zip(before, (q, k, v), strict=True))


@given(LENGTHS, st.integers(0, 10_000), st.sampled_from(BACKENDS), st.booleans())
def test_a_key_of_size_three_is_attended_to_as_three_keys(
    lengths: list[int], seed: int, backend: Backend, with_statistics: bool
) -> None:
    """Proportional attention by its definition: the same output as with every key repeated."""
    q, k, v = (drawn(lengths, seed + part) for part in range(3))
    sizes = torch.randint(1, 4, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    request = requested(lengths) if with_statistics else None
    seen = attend(q, k, v, lengths, lengths, request, backend, sizes.float())
    repeated = [int(part.sum()) for part in sizes.split(lengths)]
    keys, values = (rows.repeat_interleave(sizes, 0) for rows in (k, v))
    expected = attend(q, keys, values, lengths, repeated, backend="loop").output
    torch.testing.assert_close(seen.output, expected, rtol=1e-5, atol=1e-5)


@given(LENGTHS, st.integers(0, 10_000), st.sampled_from(BACKENDS), st.sampled_from(["first", "last"]),
       st.sampled_from([0, 1, 3, 20]), st.booleans(), st.data())  # fmt: skip
def test_statistics_are_those_of_each_sample_alone(
    lengths: list[int],
    seed: int,
    backend: Backend,
    read_out: ReadOut,
    queries: int,
    causal: bool,
    data: st.DataObject,
) -> None:
    """For any mask of protected tokens, also in the middle; padding neither gives nor receives attention."""
    q, k, v = (drawn(lengths, seed + part) for part in range(3))
    number = sum(lengths)
    protected = torch.tensor(data.draw(st.lists(st.booleans(), min_size=number, max_size=number)))
    request = request_for(Packed(torch.zeros(number, 1), lengths, protected=protected), queries, read_out)
    seen = attend(q, k, v, lengths, lengths, request, backend, causal=causal)
    output, expected, received = by_sample(q, k, v, lengths, lengths, request, causal=causal)
    assert seen.read_out is not None
    assert seen.received is not None
    torch.testing.assert_close(seen.output, output, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.read_out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.received, received, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("read_out", "queries"), [("first", None), (None, 3), (None, 0)])
def test_only_requested_statistics_are_returned(
    backend: Backend, read_out: ReadOut | None, queries: int | None
) -> None:
    """A method that needs one of them does not pay for the other."""
    lengths = [5, 2]
    q, k, v = (drawn(lengths, part) for part in range(3))
    seen = attend(q, k, v, lengths, lengths, requested(lengths, queries, read_out), backend)
    both = attend(q, k, v, lengths, lengths, requested(lengths, queries or 0), backend)
    assert (seen.read_out is None, seen.received is None) == (read_out is None, queries is None)
    for one, other in ((seen.read_out, both.read_out), (seen.received, both.received)):
        if one is not None:
            torch.testing.assert_close(one, other)


def test_the_key_metric_is_the_mean_of_the_keys_over_the_heads() -> None:
    """Methods that compare tokens by their keys read it."""
    lengths = [5, 2]
    q, k, v = (drawn(lengths, part) for part in range(3))
    seen = attend(q, k, v, lengths, lengths, replace(requested(lengths, None, None), key_metric=True))
    torch.testing.assert_close(seen.key_metric, (k[:, 0] + k[:, 1]) / 2)


@pytest.mark.parametrize("at_once", [1, 40, 100])
@pytest.mark.parametrize("lengths", [[7, 7], [3, 9, 1]])
@pytest.mark.parametrize("read_out", ["first", "last"])
def test_chunks_of_queries_change_nothing(monkeypatch, at_once: int, lengths: list[int], read_out: ReadOut) -> None:
    """Long sequences are processed in chunks to save memory; the read-out query is in one chunk only."""
    q, k, v = (drawn(lengths, part) for part in range(3))
    request, causal = requested(lengths, 0, read_out, last=read_out == "last"), read_out == "last"
    whole = attend(q, k, v, lengths, lengths, request, "padded", causal=causal)
    monkeypatch.setattr(statistics_module, "PROBABILITIES_AT_ONCE", at_once)
    pieces = attend(q, k, v, lengths, lengths, request, "padded", causal=causal)
    for name in ("output", "read_out", "received"):
        one, other = getattr(whole, name), getattr(pieces, name)
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("start_cost", "calls"), [(0, 3), (10**9, 1)])
def test_auto_pads_while_that_is_cheaper_than_another_call(monkeypatch, start_cost: int, calls: int) -> None:
    """Dozens of short samples would otherwise wait for Python; padding a short sample to a long one is expensive."""
    monkeypatch.setattr(attention, "START_COST", start_cost)
    lengths = [3, 9, 1]
    assert len(list(attention._groups(lengths, lengths, 6, "auto"))) == calls
    assert len(list(attention._groups([4, 4], [9, 9], 6, "auto"))) == 1


@pytest.mark.parametrize("with_statistics", [False, True])
def test_gradients_do_not_depend_on_how_samples_are_grouped(with_statistics: bool) -> None:
    """Training uses "auto", which chooses for each layer."""
    lengths, grads = [5, 2, 4], []
    for backend in BACKENDS:
        rows = [drawn(lengths, part).requires_grad_() for part in range(3)]
        q, k, v = rows
        request = requested(lengths) if with_statistics else None
        attend(q, k, v, lengths, lengths, request, backend).output.square().sum().backward()
        grads.append([row.grad for row in rows])
    for other in grads[1:]:
        for one, another in zip(grads[0], other, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-4)


def test_statistics_are_float32_in_half_precision() -> None:
    """In bfloat16, sums over hundreds of queries would be equal for neighbouring tokens."""
    lengths = [5, 2]
    q, k, v = (drawn(lengths, part).bfloat16() for part in range(3))
    seen = attend(q, k, v, lengths, lengths, requested(lengths))
    assert seen.output.dtype == torch.bfloat16
    assert seen.read_out is not None
    assert seen.received is not None
    assert (seen.read_out.dtype, seen.received.dtype) == (torch.float32, torch.float32)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6), st.integers(0, 10_000),
       st.sampled_from([0, 1_000, 10**9]))  # fmt: skip
def test_groups_give_each_sample_its_own_attention(
    lengths: list[tuple[int, int]], seed: int, start_cost: float
) -> None:
    """This is the path of bfloat16, checked in float32, where an error is not hidden by rounding."""
    queries, keys = [q for q, _ in lengths], [k for _, k in lengths]
    q, k, v = drawn(queries, seed), drawn(keys, seed + 1), drawn(keys, seed + 2)
    groups = grouped_attention.group_by_length(queries, keys, 6, start_cost)
    assert sorted(sample for group in groups for sample in group) == list(range(len(lengths)))
    output, _ = grouped_attention.attend_in_groups(PackedHeads(q, k, v, queries, keys), groups)
    torch.testing.assert_close(output, by_sample(q, k, v, queries, keys)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1.0, 3.0, 577.0])
def test_flash_attention_gets_sizes_in_more_than_half_precision(size: float) -> None:
    """In bfloat16, log 577 has an error of 0.02, hence attention one of 2 %; in two parts it has not."""
    key, query = torch.zeros(2, 1, 8, dtype=torch.bfloat16), torch.zeros(1, 1, 8, dtype=torch.bfloat16)
    value = torch.tensor([0.0, 1.0]).bfloat16()[:, None, None].expand(2, 1, 8)
    seen = attend(query, key, value.double(), [1], [2], backend="varlen", sizes=torch.tensor([1.0, size]))
    assert seen.output[0, 0, 0].item() == pytest.approx(size / (1 + size), rel=4e-3)


def test_cuda_uses_flash_in_half_precision_and_pads_in_float32(monkeypatch) -> None:
    """Flash attention has no float32, and dozens of small calls leave a GPU idle. A CPU decides by cost."""
    monkeypatch.setattr(attention, "HAS_VARLEN", True)

    class CudaTensor:
        device = torch.device("cuda")

        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

    for dtype, backend in ((torch.bfloat16, "varlen"), (torch.float16, "varlen"), (torch.float32, "padded")):
        assert attention.resolve_backend("auto", CudaTensor(dtype)) == backend  # type: ignore[arg-type]
        assert attention.resolve_backend("loop", CudaTensor(dtype)) == "loop"  # type: ignore[arg-type]
    assert attention.resolve_backend("auto", torch.ones(1)) == "auto"
    monkeypatch.setattr(attention, "HAS_VARLEN", False)  # torch 2.10 and older
    assert attention.resolve_backend("auto", CudaTensor(torch.float16)) == "padded"  # type: ignore[arg-type]
