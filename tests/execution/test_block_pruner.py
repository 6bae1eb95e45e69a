"""Pruning inside a block: protected tokens, the trace, and blocks that are not pruned."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from madtp_cli.execution.attention import Attention, Backend, attend
from madtp_cli.execution.block_pruner import BlockPruner, PruningSettings
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.methods import Rule, madtp
from madtp_cli.pruning.mag import AlignmentDictionary

THRESHOLD_SCALES = [0.6, 1.0, 1.5, 1e9]


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        (PruningSettings(threshold_scale=0.0), None),
        (
            PruningSettings(threshold_scale=2.0, parameters={"temperature": 0.3}, min_keep=4),
            Rule(2.0, 4, madtp.PARAMETERS(temperature=0.3), 1),
        ),
        (PruningSettings(threshold_scale=2.0, scales={"vision": [1.0, 0.5]}), Rule(1.0, 1, madtp.PARAMETERS(), 1, 2)),
        (PruningSettings(threshold_scale=2.0, scales={"vision": [1.0, 0.0]}), None),
        (PruningSettings(threshold_scale=float("inf"), scales={"vision": [1.0, 0.0]}), None),
        (PruningSettings(threshold_scale=2.0, scales={"vision": [0.5]}), Rule(2.0, 1, madtp.PARAMETERS(), 1)),
        (PruningSettings(threshold_scale=2.0, scales={"text": [0.0, 0.0]}), Rule(2.0, 1, madtp.PARAMETERS(), 1)),
    ],
)
def test_the_threshold_scale_is_multiplied_by_the_scale_of_the_block(
    settings: PruningSettings, rule: Rule | None
) -> None:
    """With a scale of 0 the second block is neither pruned nor scored, even at an infinite threshold scale."""
    assert settings.rule("vision", 1) == rule


@pytest.mark.parametrize(("text_width", "size"), [(768, 100), (1024, 100), (128, 32), (32, 8)])
def test_the_dictionary_has_the_papers_size_in_models_of_the_papers_size(text_width: int, size: int) -> None:
    """100 atoms of width 768 for BLIP; in narrow models the dictionary would cost more than pruning saves."""
    settings = PruningSettings.preset("madtp", {"vision": 48, "text": text_width}, {"vision": 3, "text": 2})
    assert (settings.dictionary_size, settings.dictionary_width) == (size, text_width)


def test_madtp_prunes_every_second_block() -> None:
    """A block that is not scored costs nothing. The factor of a text does not rise."""
    settings = PruningSettings.preset("madtp", {"vision": 48, "text": 32}, {"vision": 5, "text": 3})
    assert settings.scales == {
        "vision": [1.0, 0.0, pytest.approx(6**0.5), 0.0, pytest.approx(6.0)],
        "text": [2.0, 0.0, 2.0],
    }
    assert settings.embedding_scale == 2.0
    paper = PruningSettings.preset("madtp-paper", {"vision": 48, "text": 32}, {"vision": 2, "text": 1})
    assert paper.scales == {"vision": [1.0, 1.0], "text": [1.0]}


class Waits(TorchDispatchMode):
    """Records operators whose result the host has to wait for on a GPU."""

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


@pytest.mark.parametrize("method", ["madtp", "madtp-paper", "madtp-released"])
@pytest.mark.parametrize("queries", [0, 3])
def test_a_block_waits_for_the_device_once(monkeypatch, method: str, queries: int) -> None:
    """For its token counts; during every other wait the device would be idle while Python runs."""
    lengths = [9, 5, 12]
    dictionary = AlignmentDictionary({"vision": 6}, size=4, width=6)
    settings = PruningSettings(
        method,
        threshold_scale=1.0,
        dictionary_size=4,
        dictionary_width=6,
        parameters={"proportional": True, "queries": queries},
    )
    pruner = BlockPruner("vision", settings, dictionary, pooling=False, backend="padded")
    data = torch.randn(sum(lengths), 6)
    tokens, heads = Packed(data, lengths, torch.ones(len(data))).protect_ends(), data.unflatten(1, (2, 3))
    calls: list[str] = []
    to_list = torch.Tensor.tolist

    def recorded(tensor: torch.Tensor) -> list[int]:
        calls.append("tolist")
        return to_list(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", recorded)
    with Waits() as waits:
        seen = attend(heads, heads, heads, lengths, lengths, pruner.request(tokens), "padded", tokens.sizes)
        pruner.prune(tokens, data, seen)
    assert (waits.seen, calls) == ([], ["tolist"])


def _block(
    lengths: list[int],
    threshold_scale: float,
    backend: Backend = "auto",
    *,
    last: bool = False,
    protected: torch.Tensor | None = None,
    proportional: bool = False,
    sizes: torch.Tensor | None = None,
) -> tuple[BlockPruner, Packed, Packed]:
    """Prune one block by the paper's method; return the pruner and the tokens of width 6 before and after."""
    torch.manual_seed(0)
    total = sum(lengths)
    dictionary = AlignmentDictionary({"vision": 6}, size=4, width=5)
    parameters = {"proportional": proportional}
    settings = PruningSettings("madtp-paper", threshold_scale, 1, 4, 5, parameters=parameters)
    pruner = BlockPruner("vision", settings, dictionary, pooling=False, backend=backend)
    tokens = Packed(torch.randn(total, 6), lengths, sizes, protected=protected)
    if protected is None:
        tokens = tokens.protect_ends(first=True, last=last)
    attention = Attention(torch.randn(total, 2, 3), torch.rand(total, 2), torch.rand(total))
    before = [tokens.data.clone(), attention.output.clone()]
    pruned = pruner.prune(tokens, torch.randn(total, 6), attention)
    assert torch.equal(before[0], tokens.data)
    assert torch.equal(before[1], attention.output)
    return pruner, tokens, pruned


@pytest.mark.parametrize("backend", ["auto", "loop"])
@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
def test_protected_and_kept_tokens_do_not_change(threshold_scale: float, backend: Backend) -> None:
    """Only the merged token is new."""
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
def test_sizes_count_the_original_tokens(again: bool) -> None:
    """A merged token that is merged again stands for all of its tokens; the sum over a sample does not change."""
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


def test_a_sample_of_one_protected_token_does_not_change() -> None:
    """A sentence cut to [ENC] has no prunable token; it must not make its batch NaN."""
    pruner, tokens, pruned = _block([1, 6], 1e9)
    assert pruned.lengths == [1, 3]
    assert torch.equal(pruned.data[0], tokens.data[0])
    assert pruned.data.isfinite().all()
    assert pruner.blocks[0].entered == [1, 6]


@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
def test_a_protected_last_token_stands_after_the_merged_one(threshold_scale: float) -> None:
    """CLIP reads a text from its end; a text may consist of start and end alone, or be cut to one token."""
    lengths = [9, 1, 2, 12]
    pruner, tokens, pruned = _block(lengths, threshold_scale, last=True)
    positions = pruner.blocks[0].positions
    assert positions is not None
    parts = zip(tokens.data.split(lengths), pruned.data.split(pruned.lengths), positions.split(pruned.lengths),
                strict=True)  # fmt: skip
    for before, after, own in parts:
        assert (own[0], own[-1]) == (0, len(before) - 1)
        assert (own[:-2] >= 0).all()
        assert torch.equal(after[own >= 0], before[own[own >= 0]])
    assert pruned.lengths[1:3] == [1, 2]
    assert pruned.protected_counts == [2, 1, 2, 2]
    if threshold_scale == 1e9:
        assert pruned.lengths == [4, 1, 2, 4]
        assert (positions[2].item(), positions[-2].item()) == (-1, -1)


@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
@pytest.mark.parametrize("backend", ["auto", "loop"])
def test_any_token_can_be_protected(threshold_scale: float, backend: Backend) -> None:
    """Here tokens 0, 3, 4 and 8 of nine, and the second of two: order and mask follow the tokens."""
    protected = torch.tensor([index in (0, 3, 4, 8, 10) for index in range(11)])
    pruner, tokens, pruned = _block([9, 2], threshold_scale, backend, protected=protected)
    positions = pruner.blocks[0].positions
    assert positions is not None
    assert pruned.protected is not None
    for before, after, own, mask, expected in zip(
        tokens.data.split(tokens.lengths), pruned.data.split(pruned.lengths), positions.split(pruned.lengths),
        pruned.protected.split(pruned.lengths), ({0, 3, 4, 8}, {1}), strict=True,
    ):  # fmt: skip
        named = own[own >= 0]
        assert set(own[mask].tolist()) == expected
        assert torch.equal(named, named.sort().values)
        assert torch.equal(after[own >= 0], before[named])
    if threshold_scale == 1e9:
        first = positions[: pruned.lengths[0]].tolist()
        assert (len(first), first[-2:]) == (6, [-1, 8])  # the last prunable token is 7


def test_a_tower_must_state_its_protected_tokens() -> None:
    """Otherwise its read-out token could be pruned."""
    settings = PruningSettings(threshold_scale=1.0, dictionary_size=4, dictionary_width=5)
    pruner = BlockPruner(
        "vision", settings, AlignmentDictionary({"vision": 6}, size=4, width=5), pooling=False, backend="auto"
    )
    with pytest.raises(ValueError, match="must state its protected tokens"):
        pruner.request(Packed(torch.zeros(3, 6), [3]))


def test_a_block_that_is_not_pruned_requests_no_statistics() -> None:
    """Threshold scale 0 is the dense model at the dense cost."""
    pruner, tokens, pruned = _block([4, 3], 0.0)
    assert pruned is tokens
    assert pruner.request(tokens) is None
    assert pruner.blocks == [BlockTrace([4, 3], [4, 3])]


def _names(blocks: list[BlockTrace]) -> list[list[list[int]]]:
    return [[own.tolist() for own in block.positions.split(block.left)] for block in blocks
            if block.positions is not None]  # fmt: skip


@pytest.mark.parametrize("threshold_scale", THRESHOLD_SCALES)
def test_through_all_blocks_positions_ascend_and_merged_tokens_stand_last(
    attached, collate, samples, threshold_scale
) -> None:
    """[CLS] and [ENC] always stay first; a pruned token does not return."""
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
    """The FLOPs are computed from the trace."""
    with torch.no_grad():
        trace = attached(0.4)(**collate(samples)).trace
    for blocks in trace.values():
        assert all(block.scored for block in blocks)
        for block, following in pairwise(blocks):
            assert block.left == following.entered
            assert block.positions is not None
            assert len(block.positions) == sum(block.left)
    assert len(set(trace["vision"][-1].left)) > 1


def test_a_block_with_scale_zero_is_not_pruned(attached, collate, samples) -> None:
    """The allocation of the budget over the blocks matters as much as the score."""
    scales = {"vision": [1.0, 0.0, 1.0], "text": [0.0, 0.0, 0.0]}
    with torch.no_grad():
        trace = attached(1e9, scales=scales)(**collate(samples)).trace
    assert [block.scored for block in trace["vision"]] == [True, False, True]
    assert trace["vision"][1].left == trace["vision"][0].left == [2] * 10
    assert all(block.left == [9, 4, 12, 2, 7] and not block.scored for block in trace["text"])
