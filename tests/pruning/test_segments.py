"""Segments of packed rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.pruning import segments

LENGTHS = st.lists(st.integers(0, 5), min_size=1, max_size=5)


@given(LENGTHS, st.sampled_from([(), (3,), (2, 3)]))
def test_unpad_undoes_pad(lengths: list[int], shape: tuple[int, ...]) -> None:
    """All scores of a sample go through the padded layout and back."""
    rows = torch.randn(sum(lengths), *shape)
    assert torch.equal(segments.unpad(segments.pad(rows, lengths, 7.0), lengths), rows)


def test_cells_without_a_row_hold_the_fill_and_nothing_else() -> None:
    """A zero in place of minus infinity would be a key that attention sees."""
    padded = segments.pad(torch.arange(6.0).view(3, 2), [1, 2], fill=-9.0)
    assert padded.tolist() == [[[0.0, 1.0], [-9.0, -9.0]], [[2.0, 3.0], [4.0, 5.0]]]


def test_padding_takes_no_gradient() -> None:
    """The gradient of a row does not depend on the padding cells."""
    rows = torch.ones(3, requires_grad=True)
    (segments.pad(rows, [1, 2]) * torch.tensor([[2.0, 100.0], [3.0, 4.0]])).sum().backward()
    assert rows.grad is not None
    assert rows.grad.tolist() == [2.0, 3.0, 4.0]


@given(LENGTHS)
def test_ids_offsets_and_indices_describe_the_same_segments(lengths: list[int]) -> None:
    """Packed code uses all three."""
    ids = segments.segment_ids(lengths, torch.device("cpu")).tolist()
    indices = segments.index_in_segment(lengths, torch.device("cpu")).tolist()
    starts = segments.offsets(lengths)
    for sample, length in enumerate(lengths):
        rows = slice(starts[sample], starts[sample + 1])
        assert ids[rows] == [sample] * length
        assert indices[rows] == list(range(length))


@given(st.lists(st.booleans(), max_size=9))
def test_rows_of_is_nonzero(chosen: list[bool]) -> None:
    """It only avoids waiting for the device."""
    mask = torch.tensor(chosen, dtype=torch.bool)
    assert segments.rows_of(mask, sum(chosen)).tolist() == mask.nonzero().flatten().tolist()


@pytest.mark.parametrize(("lengths", "uniform"), [([3], True), ([2, 2], True), ([2, 3], False)])
def test_equal_lengths_need_no_copy(lengths: list[int], uniform: bool) -> None:
    """Packing costs nothing for the dense model and for single samples."""
    rows = torch.zeros(sum(lengths), 2)
    assert segments.is_uniform(lengths) is uniform
    assert (segments.pad(rows, lengths).data_ptr() == rows.data_ptr()) is uniform
