"""The cost of a forward pass: the closed formula against fvcore's count of the operators."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, library, nn

from madtp_cli.evaluation import sample_costs
from madtp_cli.execution.block_trace import BlockTrace
from madtp_cli.flops import fvcore_check
from madtp_cli.flops.counts import TokenCounts
from madtp_cli.models import architectures


def formula(model, batch) -> np.ndarray:
    """Return the cost of each sample of a batch by the closed formula."""
    with torch.no_grad():
        trace = model(**batch).trace
    return sample_costs.per_sample(model.config, sample_costs.counts_of(model, trace))


def _inputs(sample: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in sample.items() if name != "labels"}


@pytest.mark.parametrize("number", [1, 2])
def test_the_formula_is_fvcores_count_of_the_dense_model(blip, samples, number) -> None:
    """To the digit, on a model whose sizes all differ, so no term can be confused with another."""
    sample = _inputs(samples[number])
    assert formula(blip, sample).tolist() == [fvcore_check.count_with_fvcore(blip, sample)]


@pytest.mark.parametrize("method", ["madtp", "madtp-paper", "madtp-released"])
@pytest.mark.parametrize("threshold_scale", [0.0, 0.15, 0.3, 1e9])
@pytest.mark.parametrize("number", [0, 2])
def test_the_formula_is_fvcores_count_of_a_pruned_model(attached, samples, number, threshold_scale, method) -> None:
    """Dictionary, threshold and merging are included; at threshold scale 0 nothing is scored and they cost nothing."""
    before = {"embedding_scale": 1.0} if method == "madtp" else {}
    model, sample = attached(threshold_scale, method=method, **before), _inputs(samples[number])
    assert formula(model, sample).tolist() == [fvcore_check.count_with_fvcore(model, sample)]


def test_the_fvcore_check_uses_images_with_different_counts(attached, samples) -> None:
    """Otherwise a formula that uses one image for both would pass."""
    for number, threshold_scale in ((0, 0.15), (0, 0.3), (2, 0.15), (2, 0.3)):
        with torch.no_grad():
            left, right = (
                attached(threshold_scale, embedding_scale=0.0)(**_inputs(samples[number])).trace["vision"][-1].left
            )
        assert left != right


def test_a_sample_costs_in_a_batch_what_it_costs_alone(attached, collate, samples) -> None:
    """Padding is not part of the cost."""
    model = attached(0.4)
    alone = [formula(model, _inputs(sample))[0] for sample in samples]
    assert formula(model, _inputs(collate(samples, longest=16))).tolist() == alone


@pytest.mark.parametrize(("tokens", "known"), [(36, 132_540_715_008), (8, 128_549_379_072), (60, 135_984_863_232)])
def test_blip_base_costs_what_the_original_code_measured(tokens, known) -> None:
    """132.54 GFLOPs is the literature's figure; the original's own counts at other lengths as well."""
    config = architectures()["blip-nlvr-base"]()
    cost = sample_costs.per_sample(config, sample_costs.dense_counts(config, {"text": [tokens]}))
    assert cost.tolist() == [known]
    assert known == 127_414_305_792 + 141_736_704 * tokens + 18_432 * tokens**2


def test_towers_sum_to_the_total() -> None:
    """The image tower is most of it, so its tokens are pruned."""
    config = architectures()["blip-nlvr-base"]()
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [36, 8]}))
    parts = [sample_costs.total(costs, tower) for tower in ("vision", "text", "head")]
    assert np.array_equal(np.sum(parts, axis=0), sample_costs.total(costs))
    assert (parts[0] > 0.8 * sample_costs.total(costs)).all()
    # Per image: 576 patches of 3 x 16 x 16, 577 tokens of width 768 in 12 blocks, three norms' worth around them.
    block = 4 * 577 * 768**2 + 2 * 577**2 * 768 + 8 * 577 * 768**2 + 10 * 577 * 768
    assert parts[0][0] == 2 * (576 * 768 * 768 + 12 * block + 5 * 577 * 768)


class _Toy(nn.Module):
    """Has the interface of a model and computes a given function."""

    def __init__(self, compute) -> None:
        super().__init__()
        self.backend, self.compute = "auto", compute

    def forward(self, rows: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.compute(rows))


@library.custom_op("madtp::uncounted_product", mutates_args=())
def _uncounted_product(rows: Tensor) -> Tensor:
    return rows @ rows.T


class _OwnFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        return rows @ rows.T


UNCOUNTED: dict[str, Callable[[Tensor], Tensor]] = {
    "aten::cdist": lambda rows: torch.cdist(rows, rows),
    "aten::mv": lambda rows: rows.mv(rows[0]),
    "aten::outer": lambda rows: torch.outer(rows[0], rows[0]),
    "madtp::uncounted_product": _uncounted_product,
    "_OwnFunction": _OwnFunction.apply,
}


@pytest.mark.parametrize("name", UNCOUNTED)
def test_no_total_while_an_operator_goes_uncounted(name) -> None:
    """fvcore warns and counts nothing; in the released code attention was not counted in this way."""
    model = _Toy(lambda rows: UNCOUNTED[name](rows * 2) + 1)
    with pytest.raises(fvcore_check.UncountedOperatorError, match=name):
        fvcore_check.count_with_fvcore(model, {"rows": torch.randn(3, 4)})
    assert model.backend == "auto"


def test_counted_and_free_operators_give_a_total() -> None:
    """[3, 4] @ [4, 5] is 60 multiply-adds, the layer norm 5 for each of 15 numbers, the rest nothing."""
    weight, scale = torch.randn(4, 5), torch.ones(5)
    model = _Toy(lambda rows: nn.functional.layer_norm(rows @ weight, [5], scale, scale).softmax(-1).topk(2).values + 1)
    assert fvcore_check.count_with_fvcore(model, {"rows": torch.randn(3, 4)}) == 3 * 4 * 5 + 5 * 3 * 5


def test_no_warning_of_fvcore_reaches_the_user(tmp_path, monkeypatch) -> None:
    """It scripts a function while it is imported, of which newer torch versions warn visibly."""
    (tmp_path / "fvcore").mkdir()
    warning = "import warnings; warnings.warn('`torch.jit.script` is deprecated.', FutureWarning)"
    (tmp_path / "fvcore/__init__.py").touch()
    (tmp_path / "fvcore/nn.py").write_text(f"{warning}\nFlopCountAnalysis = 'imported'")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "fvcore"]:
        monkeypatch.delitem(sys.modules, name)
    imported = runpy.run_path(fvcore_check.__file__)
    for name in ("fvcore.nn", "fvcore"):
        del sys.modules[name]
    assert imported["FlopCountAnalysis"] == "imported"


def test_fused_attention_is_counted() -> None:
    """2 heads x 3 queries x 7 keys x (width 4 for the scores + 4 for the values)."""
    query, memory = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 7, 4)
    model = _Toy(lambda rows: nn.functional.scaled_dot_product_attention(rows, memory, memory))
    assert fvcore_check.count_with_fvcore(model, {"rows": query}) == 2 * 3 * 7 * (4 + 4)


@pytest.mark.parametrize("settings", [{}, {"min_keep": 2}, {"method": "madtp-paper"},
                                      {"scales": {"vision": [0.0, 1.0, 0.0]}},
                                      {"scales": {"vision": [1.0, 1.0, 1.0], "text": [0.0, 0.0, 0.0]}}])  # fmt: skip
def test_the_smallest_cost_is_reached_at_a_large_threshold_scale(attached, collate, samples, settings) -> None:
    """A budget below this figure is refused before training, so it must be exact."""
    model, batch = attached(1e9, **settings), _inputs(collate(samples))
    with torch.no_grad():
        reached = sample_costs.counts_of(model, model(**batch).trace)
    least = sample_costs.least_counts(model, {"text": batch["attention_mask"].sum(1).tolist()})
    assert reached.keys() == least.keys()
    for tower, counts in reached.items():
        for one, other in zip(vars(counts).values(), vars(least[tower]).values(), strict=True):
            assert np.array_equal(one, other)


def test_the_smallest_cost_does_not_depend_on_the_threshold_scale(attached) -> None:
    """It is computed before the threshold scale is known."""
    floors = [sample_costs.per_sample(model.config, sample_costs.least_counts(model, {"text": [9, 4]}))
              for model in (attached(0.0), attached(0.4), attached(1e9))]  # fmt: skip
    assert floors[0].tolist() == floors[1].tolist() == floors[2].tolist()


def test_a_dense_model_has_no_smallest_cost(blip) -> None:
    """It has no threshold scale."""
    with pytest.raises(ValueError, match="no threshold scale"):
        sample_costs.least_counts(blip, {"text": [9]})


def test_pruning_costs_less_than_it_saves(attached, samples) -> None:
    """For each sample: dense, then threshold scale 0.4, then the smallest cost."""
    costs = [
        [formula(attached(threshold_scale), _inputs(sample))[0] for sample in samples]
        for threshold_scale in (0.0, 0.4, 1e9)
    ]
    for dense, pruned, floor in zip(*costs, strict=True):
        assert dense > pruned > floor


def test_left_and_right_images_of_a_sample_come_together() -> None:
    """A trace has all left images, then all right ones; in the counts, samples are the middle axis."""
    blocks = [BlockTrace([5, 6, 7, 8, 9, 10], [1, 2, 3, 4, 5, 6], positions=torch.arange(21))]
    counts = TokenCounts.of(blocks, inputs=2)
    assert counts.entered.tolist() == [[[5, 8], [6, 9], [7, 10]]]
    assert counts.left.tolist() == [[[1, 4], [2, 5], [3, 6]]]
    joined = TokenCounts.joined([counts, replace(counts, left=counts.left + 10)])
    assert joined.left.tolist() == [[[1, 4], [2, 5], [3, 6], [11, 14], [12, 15], [13, 16]]]
    assert joined.scored.tolist() == [True]
