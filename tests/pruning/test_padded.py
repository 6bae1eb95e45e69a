"""The rules on a padded block, against the same rules on packed tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from madtp_cli.pruning import dynamic, importance, padded, segments
from madtp_cli.pruning.merging import PruneDecision, means

LENGTHS = st.lists(st.integers(1, 11), min_size=1, max_size=4)
RULES: list[tuple[Callable[..., PruneDecision], Callable[..., padded.PaddedPruneDecision]]] = [
    (dynamic.prune_peaks, padded.place_peaks),
    (lambda *given, tokens, **more: dynamic.prune_important(*given, **more), padded.place_important),
]


def drawn(lengths: list[int], seed: int) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Packed tokens of width 5, two normalised scores, logits against three atoms."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    first, second = (importance.normalise(torch.rand(total, generator=generator), lengths) for _ in range(2))
    tokens, logits = (torch.randn(total, width, generator=generator) for width in (5, 3))
    return tokens, (first, second), logits


def spread(rows: Tensor, lengths: list[int]) -> Tensor:
    """Rows in a block with one cell before them and two behind, all of which hold what must not be looked at."""
    block = segments.pad(rows, lengths, 7.0)
    border = block.new_full((len(lengths), 1, *rows.shape[1:]), 7.0)
    return torch.cat([border, block, border, border], 1)


@pytest.mark.parametrize(("packed", "on_block"), RULES)
@given(LENGTHS, st.integers(0, 10_000), st.floats(0.1, 2.5), st.integers(1, 4))
def test_a_block_is_pruned_as_packed_tokens_are(packed, on_block, lengths, seed, threshold_scale, min_keep) -> None:
    """Two forms of one rule: the same tokens stay, in the same places, and the others join the same ones."""
    tokens, scores, logits = drawn(lengths, seed)
    kept = packed(lengths, scores, logits, threshold_scale, tokens=tokens, temperature=0.7, min_keep=min_keep)
    prunable = spread(torch.ones(sum(lengths)), lengths) == 1
    first, second = (spread(score, lengths) * prunable for score in scores)
    seen = padded.PaddedBlockInputs(spread(tokens, lengths), first, second, spread(logits, lengths), prunable)
    placed = on_block(seen, threshold_scale, temperature=0.7, min_keep=min_keep)
    assert placed.counts.tolist() == kept.lengths
    longest = max(kept.lengths)
    weights, places = (placed.importance + 1e-20) * prunable, torch.where(prunable, placed.places, 0)
    joined = padded.gathered(seen.tokens, weights, places, longest)
    made = means(tokens, kept.places, kept.shares, sum(kept.lengths))
    torch.testing.assert_close(segments.unpad(joined, kept.lengths), made, rtol=1e-5, atol=1e-5)
    sizes = padded.summed(prunable.float(), places, longest)
    assert segments.unpad(sizes, kept.lengths).tolist() == kept.places.bincount().tolist()


@pytest.mark.parametrize("on_block", [rule for _, rule in RULES])
def test_a_sample_without_prunable_tokens_is_left_alone(on_block) -> None:
    """A text of its pinned tokens alone must not turn its neighbours into NaN."""
    tokens, scores, logits = drawn([3, 3], seed=1)
    prunable = torch.tensor([[False] * 3, [True] * 3])
    block, first, second, against = (part.unflatten(0, (2, 3)) for part in (tokens, *scores, logits))
    seen = padded.PaddedBlockInputs(block, first * prunable, second * prunable, against, prunable)
    placed = on_block(seen, 0.9)
    assert placed.counts[0] == 0
    assert placed.counts[1] >= 1
    assert placed.importance.isfinite().all()
