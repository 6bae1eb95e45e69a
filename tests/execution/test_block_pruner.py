"""Pruning inside a block: what is pinned, what is recorded, what is left alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from madtp_cli.execution.attention import Attention, attend
from madtp_cli.execution.block_pruner import PINNED, BlockPruner, BlockTrace, PruningSettings
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.statistics import Statistics
from madtp_cli.methods import Rule
from madtp_cli.pruning.mag import AlignmentDictionary

KNOBS = [0.6, 1.0, 1.5, 1e9]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (PruningSettings(threshold_scale=0.0), None),
        (PruningSettings(threshold_scale=2.0, temperature=0.3, min_keep=4), Rule(2.0, 0.3, 4)),
        (PruningSettings(threshold_scale=2.0, scales={"vision": [1.0, 0.5]}), Rule(1.0)),
        (PruningSettings(threshold_scale=2.0, scales={"vision": [1.0, 0.0]}), None),
        (PruningSettings(threshold_scale=float("inf"), scales={"vision": [1.0, 0.0]}), None),
        (PruningSettings(threshold_scale=2.0, scales={"vision": [0.5]}), Rule(2.0)),
        (PruningSettings(threshold_scale=2.0, scales={"text": [0.0, 0.0]}), Rule(2.0)),
    ],
)
def test_a_blocks_rule_is_the_knob_times_its_scale(settings: PruningSettings, rule: Rule | None) -> None:
    """A scale of nothing leaves the second block alone at any knob, without the cost of scoring."""
    assert settings.rule("vision", 1) == rule


@pytest.mark.parametrize(("text_width", "size"), [(768, 100), (1024, 100), (128, 32), (32, 8)])
def test_the_dictionary_has_the_papers_size_where_the_model_has(text_width: int, size: int) -> None:
    """100 atoms of width 768 for BLIP; narrow models get fewer, or matching would cost more than it saves."""
    settings = PruningSettings.preset("madtp", {"vision": 48, "text": text_width}, {"vision": 3, "text": 2})
    assert (settings.dictionary_size, settings.dictionary_width) == (size, text_width)


def test_ours_scores_every_second_block_and_leaves_the_text_alone() -> None:
    """The words carry more than patches do; and what is not scored costs nothing."""
    settings = PruningSettings.preset("madtp", {"vision": 48, "text": 32}, {"vision": 5, "text": 2})
    assert settings.scales == {"vision": [1.0, 0.0, 1.0, 0.0, 1.0], "text": [0.0, 0.0]}
    paper = PruningSettings.preset("madtp-paper", {"vision": 48, "text": 32}, {"vision": 2, "text": 1})
    assert paper.scales == {"vision": [1.0, 1.0], "text": [1.0]}


class Waits(TorchDispatchMode):
    """Counts what a GPU would be waited for: results whose size or value the host must know."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        by_mask = name in ("index", "index_put", "index_put_") and any(
            picked is not None and picked.dtype == torch.bool for picked in args[1]
        )
        if by_mask or name in ("nonzero", "_local_scalar_dense", "masked_select", "unique", "equal"):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["madtp", "madtp-paper"])
@pytest.mark.parametrize("queries", [0, 3])
def test_a_block_waits_for_the_device_once(monkeypatch, method: str, queries: int) -> None:
    """For its counts; every other wait would leave the device idle while Python runs."""
    lengths = [9, 5, 12]
    dictionary = AlignmentDictionary({"vision": 6}, size=4, width=6)
    settings = PruningSettings(
        method, threshold_scale=1.0, proportional=True, queries=queries, dictionary_size=4, dictionary_width=6
    )
    pruner = BlockPruner("vision", settings, dictionary, pooling=False, backend="padded")
    data = torch.randn(sum(lengths), 6)
    tokens, heads = Packed(data, lengths, torch.ones(len(data))), data.unflatten(1, (2, 3))
    told: list[str] = []
    to_list = torch.Tensor.tolist

    def heard(tensor: torch.Tensor) -> list[int]:
        told.append("tolist")
        return to_list(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", heard)
    with Waits() as waits:
        seen = attend(heads, heads, heads, lengths, lengths, pruner.statistics(), "padded", tokens.sizes)
        pruner.prune(tokens, data, seen)
    assert (waits.seen, told) == ([], ["tolist"])


def _block(
    lengths: list[int],
    threshold_scale: float,
    backend: str = "auto",
    pinned: Statistics = PINNED,
    *,
    proportional: bool = False,
    sizes: torch.Tensor | None = None,
) -> tuple[BlockPruner, Packed, Packed]:
    """A pruner, tokens of width 6, and what it made of them."""
    torch.manual_seed(0)
    total = sum(lengths)
    dictionary = AlignmentDictionary({"vision": 6}, size=4, width=5)
    settings = PruningSettings(
        "madtp-paper", threshold_scale=threshold_scale, proportional=proportional, dictionary_size=4, dictionary_width=5
    )
    pruner = BlockPruner("vision", settings, dictionary, pooling=False, backend=backend, pinned=pinned)  # type: ignore[arg-type]
    tokens = Packed(torch.randn(total, 6), lengths, sizes)
    seen = Attention(torch.randn(total, 2, 3), torch.rand(total, 2), torch.rand(total))
    before = [tokens.data.clone(), seen.output.clone()]
    pruned = pruner.prune(tokens, torch.randn(total, 6), seen)
    assert torch.equal(before[0], tokens.data)
    assert torch.equal(before[1], seen.output)
    return pruner, tokens, pruned


@pytest.mark.parametrize("backend", ["auto", "loop"])
@pytest.mark.parametrize("threshold_scale", KNOBS)
def test_pinned_and_kept_tokens_come_out_bit_for_bit(threshold_scale: float, backend: str) -> None:
    """The paper's rule chooses; only the merged token is new."""
    pruner, tokens, pruned = _block([9, 1, 5, 12], threshold_scale, backend)
    positions = pruner.blocks[0].positions
    assert positions is not None
    parts = zip(tokens.data.split(tokens.lengths), pruned.data.split(pruned.lengths),
                positions.split(pruned.lengths), strict=True)  # fmt: skip
    for before, after, own in parts:
        assert own[0] == 0
        real = own >= 0
        assert torch.equal(after[real], before[own[real]])


@pytest.mark.parametrize("again", [False, True])
def test_sizes_count_what_a_token_stands_for(again: bool) -> None:
    """A merged token that is merged again stands for all of them; they add up to the tokens there were."""
    lengths = [9, 1, 5, 12]
    given = torch.arange(27.0) if again else None
    pruner, _, pruned = _block(lengths, 1.0, proportional=True, sizes=given)
    whole = torch.ones(27) if given is None else given
    positions = pruner.blocks[0].positions
    assert positions is not None
    assert pruned.sizes is not None
    assert (positions < 0).any()
    parts = zip(whole.split(lengths), pruned.sizes.split(pruned.lengths), positions.split(pruned.lengths),
                strict=True)  # fmt: skip
    for before, after, own in parts:
        real = own >= 0
        assert torch.equal(after[real], before[own[real]])
        assert after.sum() == before.sum()


def test_a_sample_of_the_pinned_token_alone_passes() -> None:
    """A sentence cut to [ENC] has nothing to score; it must not turn its batch into NaN."""
    pruner, tokens, pruned = _block([1, 6], 1e9)
    assert pruned.lengths == [1, 3]
    assert torch.equal(pruned.data[0], tokens.data[0])
    assert pruned.data.isfinite().all()
    assert pruner.blocks[0].entered == [1, 6]


@pytest.mark.parametrize("threshold_scale", KNOBS)
def test_a_pinned_last_token_stays_last_behind_the_merged_one(threshold_scale: float) -> None:
    """CLIP reads a text off its end; a text may be its start and end alone, or be cut to one token."""
    lengths = [9, 1, 2, 12]
    pruner, tokens, pruned = _block(lengths, threshold_scale, pinned=Statistics(1, 1))
    positions = pruner.blocks[0].positions
    assert positions is not None
    assert pruner.statistics() == Statistics(1, 1)
    parts = zip(tokens.data.split(lengths), pruned.data.split(pruned.lengths), positions.split(pruned.lengths),
                strict=True)  # fmt: skip
    for before, after, own in parts:
        assert (own[0], own[-1]) == (0, len(before) - 1)
        assert (own[:-2] >= 0).all()
        assert torch.equal(after[own >= 0], before[own[own >= 0]])
    assert pruned.lengths[1:3] == [1, 2]
    if threshold_scale == 1e9:
        assert pruned.lengths == [4, 1, 2, 4]
        assert (positions[2].item(), positions[-2].item()) == (-1, -1)


def test_a_block_that_is_left_alone_asks_for_no_statistics() -> None:
    """Knob 0 is the dense model at the dense cost."""
    pruner, tokens, pruned = _block([4, 3], 0.0)
    assert pruned is tokens
    assert pruner.statistics() is None
    assert pruner.blocks == [BlockTrace([4, 3], [4, 3])]


def _names(blocks: list[BlockTrace]) -> list[list[list[int]]]:
    return [[own.tolist() for own in block.positions.split(block.left)] for block in blocks
            if block.positions is not None]  # fmt: skip


@pytest.mark.parametrize("threshold_scale", KNOBS)
def test_through_all_blocks_positions_ascend_and_merged_tokens_stand_last(
    attached, collate, samples, threshold_scale
) -> None:
    """[CLS] and [ENC] always stay first; a token that is gone does not come back."""
    batch = collate(samples)
    with torch.no_grad():
        trace = attached(threshold_scale)(**batch).trace
    dense = {"vision": [37] * 10, "text": batch["attention_mask"].sum(1).tolist()}
    for tower, blocks in trace.items():
        before = [list(range(length)) for length in dense[tower]]
        for names in _names(blocks):
            for own, earlier in zip(names, before, strict=True):
                real = [position for position in own if position >= 0]
                assert own == real + [-1] * (len(own) - len(real))
                assert real[0] == 0
                assert real == sorted(set(real))
                assert set(real) <= set(earlier)
            before = names


def test_what_leaves_a_block_enters_the_next(attached, collate, samples) -> None:
    """The FLOPs are computed from this record."""
    with torch.no_grad():
        trace = attached(0.4)(**collate(samples)).trace
    for blocks in trace.values():
        assert all(block.scored for block in blocks)
        for block, following in pairwise(blocks):
            assert block.left == following.entered
            assert block.positions is not None
            assert len(block.positions) == sum(block.left)
    assert len(set(trace["vision"][-1].left)) > 1


def test_a_scale_of_zero_leaves_its_block_alone(attached, collate, samples) -> None:
    """Where the budget is spent over the layers matters as much as the score."""
    scales = {"vision": [1.0, 0.0, 1.0], "text": [0.0, 0.0, 0.0]}
    with torch.no_grad():
        trace = attached(1e9, scales=scales)(**collate(samples)).trace
    assert [block.scored for block in trace["vision"]] == [True, False, True]
    assert trace["vision"][1].left == trace["vision"][0].left == [2] * 10
    assert all(block.left == [9, 4, 12, 2, 7] and not block.scored for block in trace["text"])
