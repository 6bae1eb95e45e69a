"""The default method, the paper's method and that of the released code, on inputs without a model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli import methods
from madtp_cli.errors import UsageError
from madtp_cli.methods import BlockInputs, Method, Rule, madtp, madtp_paper, madtp_released
from madtp_cli.pruning import merging, segments
from madtp_cli.pruning.importance import normalise

ALL: list[Method] = [madtp, madtp_paper, madtp_released]
LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=4)


def rule(method: Method, threshold_scale: float, min_keep: int = 1, temperature: float = 1.0) -> Rule:
    """Return a rule with the method's parameters."""
    return Rule(threshold_scale, min_keep, method.PARAMETERS(temperature=temperature))  # type: ignore[call-arg]


def drawn(lengths: list[int], seed: int) -> BlockInputs:
    """Return random inputs: tokens of width 3 and 4 atoms; cells without a token hold large values."""
    generator = torch.Generator().manual_seed(seed)
    mask = segments.real_rows(lengths, torch.device("cpu"))

    def random(*width: int) -> torch.Tensor:
        values = torch.randn(*mask.shape, *width, generator=generator)
        return torch.where(mask.view(*mask.shape, *[1] * len(width)), values, 7.0)

    scores = [normalise(random().abs(), mask) for _ in range(2)]
    return BlockInputs(mask, random(3), lambda values: values, scores[0], scores[1], 2 * random(4))


def _tensors(inputs: BlockInputs) -> list[torch.Tensor]:
    return [value for value in vars(inputs).values() if isinstance(value, torch.Tensor)]


def counts(decision: methods.PruneDecision, mask: torch.Tensor) -> list[int]:
    """Return how many prunable tokens each sample has afterwards, the merged token included."""
    moves = merging.moves(decision, mask)
    result: list[int] = (moves.kept.sum(1) + moves.closes.sum(1)).tolist()
    return result


def _made(decision: methods.PruneDecision, inputs: BlockInputs) -> torch.Tensor:
    """Apply a decision, [batch, longest, width]."""
    moves = merging.moves(decision, inputs.mask)
    places = torch.where(inputs.mask, moves.places()[0], 0)
    weights = (decision.weights + merging.WEIGHT_FLOOR) * inputs.mask
    return merging.padded_means(inputs.tokens, weights, places, inputs.mask.shape[1])


def _by_hand(tokens: list[list[float]], class_attention: list[float], received: list[float]) -> BlockInputs:
    """Return inputs of one sample of four tokens, with a dictionary that attends to all tokens equally."""
    return BlockInputs(
        mask=torch.ones(1, 4, dtype=torch.bool),
        tokens=torch.tensor([tokens]),
        arrange=lambda values: values,
        class_attention=torch.tensor([class_attention]),
        received_attention=torch.tensor([received]),
        dictionary_logits=torch.zeros(1, 4, 5),
    )


def test_importance_is_the_mean_of_three_scores() -> None:
    """By hand: the dictionary gives each of four tokens 1/4, so importance is 0.45, 0.8/3, 0.4/3, 0.15. The threshold
    at scale 1 is its mean, 1/4. The last two tokens merge to (0.4/3 * 4 + 0.15 * 8) / (0.4/3 + 0.15)."""
    inputs = _by_hand([[1.0], [2.0], [4.0], [8.0]], [0.7, 0.1, 0.1, 0.1], [0.4, 0.45, 0.05, 0.1])
    decision = madtp_paper.keep(inputs, rule(madtp_paper, 1.0))
    assert decision.goes_to.tolist() == [[0, 1, merging.MERGED, merging.MERGED]]
    expected = torch.tensor([[1.0], [2.0], [(1.6 / 3 + 1.2) / (0.4 / 3 + 0.15)]])
    torch.testing.assert_close(_made(decision, inputs)[0, :3], expected)


@pytest.mark.parametrize(
    ("threshold_scale", "goes_to"), [(0.15, [0, 1, 2, 2]), (0.6, [0, 0, 2, 2]), (0.7, [0, 0, 0, 0])]
)
def test_the_score_is_the_root_of_importance_times_distinctness(threshold_scale: float, goes_to: list[int]) -> None:
    """By hand: the dictionary gives 1/4, so importance is (1.25, 0.85, 0.55, 0.35) / 3. Token 1 points nearly in the
    direction of 0 (cosine 0.8), 2 in another one, 3 in that of 2. The products with the roots are 1.291, 0.106, 0.428
    and 0, their quadratic mean is 0.682. Token 1 is more important than 2 but is pruned before it."""
    attention = [0.5, 0.3, 0.15, 0.05]
    inputs = _by_hand([[2.0, 0, 0], [0.8, 0.6, 0], [0, 0, 1.0], [0, 0, 3.0]], attention, attention)
    assert madtp.keep(inputs, rule(madtp, threshold_scale)).goes_to.tolist() == [goes_to]


@pytest.mark.parametrize("method", ALL)
@given(LENGTHS, st.integers(0, 10_000), st.sampled_from([0.3, 0.8, 1.0, 1.3, 1e9]), st.integers(1, 3))
def test_keep_each_decides_as_keep(
    method: Method, lengths: list[int], seed: int, threshold_scale: float, min_keep: int
) -> None:
    """fvcore counts the first, users run the second; neither changes its inputs."""
    inputs, chosen = drawn(lengths, seed), rule(method, threshold_scale, min_keep, 0.7)
    before = [value.clone() for value in _tensors(inputs)]
    together, each = method.keep(inputs, chosen), methods.keep_each(method, inputs, lengths, chosen)
    assert torch.equal(together.goes_to[inputs.mask], each.goes_to[inputs.mask])
    torch.testing.assert_close(together.weights[inputs.mask], each.weights[inputs.mask])
    assert all(torch.equal(*pair) for pair in zip(before, _tensors(inputs), strict=True))


@pytest.mark.parametrize("method", ALL)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 10_000), st.floats(0.1, 2.5))
def test_exported_models_decide_as_packed_ones(
    method: Method, lengths: list[int], seed: int, threshold_scale: float
) -> None:
    """Also where protected tokens stand before, between and after the prunable ones."""
    inputs, chosen = drawn(lengths, seed), rule(method, threshold_scale, temperature=0.7)
    gaps = torch.arange(1, 2 * inputs.mask.shape[1], 2)

    def spread(values: torch.Tensor) -> torch.Tensor:
        wide = torch.full((len(values), 2 * values.shape[1] + 1, *values.shape[2:]), 7).to(values.dtype)
        return wide.index_copy(1, gaps, values)

    mask = spread(inputs.mask.long()) == 1
    tokens, first, second, logits = (spread(value) for value in _tensors(inputs)[1:])
    padded = BlockInputs(mask, tokens, lambda values: values, first * mask, second * mask, logits, exportable=True)
    packed, exported = method.keep(inputs, chosen), method.keep(padded, chosen)
    assert counts(packed, inputs.mask) == counts(exported, mask)
    rows = torch.where(packed.goes_to >= 0, 2 * packed.goes_to + 1, packed.goes_to)
    assert torch.equal(rows[inputs.mask], exported.goes_to[mask])
    torch.testing.assert_close(packed.weights[inputs.mask], exported.weights[mask])


@pytest.mark.parametrize("method", [madtp, madtp_paper])  # the scores of the released code can be negative
@given(LENGTHS, st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 3.0]))
def test_fewer_tokens_are_kept_as_the_threshold_scale_rises(
    method: Method, lengths: list[int], seed: int, temperature: float
) -> None:
    """Within a block this is exact, so one number can meet a budget."""
    inputs = drawn(lengths, seed)
    found = [
        counts(method.keep(inputs, rule(method, scale, temperature=temperature)), inputs.mask)
        for scale in (1e-6, 0.5, 0.9, 1.1, 1.5, 3, 1e9)
    ]
    assert found[0] == lengths
    assert found[-1] == [min(length, 1 + method.MERGED_TOKENS) for length in lengths]
    for before, after in pairwise(found):
        assert all(more >= fewer for more, fewer in zip(before, after, strict=True))


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("min_keep", [1, 2, 5])
@pytest.mark.parametrize("threshold_scale", [1e9, float("inf")])
def test_min_keep_holds_at_any_threshold_scale(method: Method, threshold_scale: float, min_keep: int) -> None:
    """The smallest possible cost is computed from it: min_keep tokens and the merged one, or all if these are fewer."""
    lengths = [9, 3, 6, 1]
    inputs = drawn(lengths, 0)
    decision = method.keep(inputs, rule(method, threshold_scale, min_keep))
    assert counts(decision, inputs.mask) == [min(length, min_keep + method.MERGED_TOKENS) for length in lengths]


@pytest.mark.parametrize("method", ALL)
def test_the_tokens_of_another_sample_change_nothing(method: Method) -> None:
    """The first sample is decided in the same way whatever the second is."""
    one, other = drawn([8, 5], 0), drawn([8, 5], 1)
    changed = {
        name: torch.cat([value[:1], getattr(other, name)[1:]])
        for name, value in vars(one).items()
        if isinstance(value, torch.Tensor)
    }
    mixed = replace(one, **changed)  # type: ignore[arg-type]
    first, second = (method.keep(inputs, rule(method, 1.0)) for inputs in (one, mixed))
    assert counts(first, one.mask)[0] < 8
    assert torch.equal(first.goes_to[0], second.goes_to[0])
    torch.testing.assert_close(_made(first, one)[0], _made(second, mixed)[0])


@pytest.mark.parametrize(("method", "threshold_scale"), [(madtp, 0.6), (madtp_paper, 1.2)])
def test_the_task_trains_the_dictionary_through_merged_tokens(method: Method, threshold_scale: float) -> None:
    """A threshold passes no gradient; without this path only the alignment loss would reach the dictionary."""
    inputs = drawn([9], 0)
    logits = _tensors(inputs)[-1].requires_grad_()
    decision = method.keep(replace(inputs, dictionary_logits=logits), rule(method, threshold_scale))
    assert 2 <= counts(decision, inputs.mask)[0] < 8
    _made(decision, inputs).square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def test_methods_are_the_files_of_their_folder() -> None:
    """A new method is one new file; the error for an unknown name lists the names."""
    assert {"madtp", "madtp-paper", "madtp-released"} <= set(methods.names())
    assert [methods.get(name) for name in ("madtp", "madtp-paper", "madtp-released")] == ALL
    with pytest.raises(UsageError, match=r"no method 'topk'\. Choose one of: .*madtp"):
        methods.get("topk")
