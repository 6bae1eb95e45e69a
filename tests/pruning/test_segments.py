"""Packed rows and their segments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.pruning import segments

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=5)


@given(LENGTHS, st.sampled_from([(), (3,), (2, 3)]))
def test_unpad_undoes_pad(lengths: list[int], shape: tuple[int, ...]) -> None:
    """Everything that looks across a sample goes there and back."""
    rows = torch.randn(sum(lengths), *shape)
    assert torch.equal(segments.unpad(segments.pad(rows, lengths, 7.0), lengths), rows)


def test_cells_without_a_row_hold_the_fill_and_nothing_else() -> None:
    """A zero where minus infinity belongs would be a token that attention sees."""
    padded = segments.pad(torch.arange(6.0).view(3, 2), [1, 2], fill=-9.0)
    assert padded.tolist() == [[[0.0, 1.0], [-9.0, -9.0]], [[2.0, 3.0], [4.0, 5.0]]]


def test_padding_takes_no_gradient() -> None:
    """Each row's gradient is its own, whatever lies in the cells beside it."""
    rows = torch.ones(3, requires_grad=True)
    (segments.pad(rows, [1, 2]) * torch.tensor([[2.0, 100.0], [3.0, 4.0]])).sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [2.0, 3.0, 4.0]


@given(LENGTHS)
def test_ids_and_offsets_tell_where_each_sample_lies(lengths: list[int]) -> None:
    """They are two ways to say one thing; packed code uses both."""
    ids = segments.segment_ids(lengths, torch.device("cpu")).tolist()
    starts = segments.offsets(lengths)
    for sample, length in enumerate(lengths):
        assert ids[starts[sample] : starts[sample + 1]] == [sample] * length


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4))
def test_interleave_joins_sample_by_sample(counts: list[tuple[int, int]]) -> None:
    """Pinned, kept and merged tokens come together so; a swap would mix up samples."""
    first, second = ([pair[part] for pair in counts] for part in (0, 1))
    a, b = torch.arange(sum(first)), 100 + torch.arange(sum(second))
    expected = [row for x, y in zip(a.split(first), b.split(second), strict=True) for row in [*x.tolist(), *y.tolist()]]
    assert segments.interleave([a, b], [first, second]).tolist() == expected


@pytest.mark.parametrize(("lengths", "uniform"), [([3], True), ([2, 2], True), ([2, 3], False)])
def test_equal_lengths_need_no_copy(lengths: list[int], uniform: bool) -> None:
    """The dense model and single samples pay nothing for being packed."""
    rows = torch.zeros(sum(lengths), 2)
    assert segments.is_uniform(lengths) is uniform
    assert (segments.pad(rows, lengths).data_ptr() == rows.data_ptr()) is uniform
