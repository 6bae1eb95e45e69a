"""The FLOPs formula of CLIP equals fvcore, and the parts of the published figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from madtp_cli import models
from madtp_cli.evaluation import sample_costs
from madtp_cli.flops import fvcore_check
from madtp_cli.models import architectures
from madtp_cli.models.clip.costs import retrieval


def _inputs(sample):
    return {name: value for name, value in sample.items() if name != "labels"}


def formula(model, batch) -> list[int]:
    """Return the cost of each sample of a batch."""
    with torch.no_grad():
        trace = model(**_inputs(batch)).trace
    return sample_costs.per_sample(model.config, sample_costs.counts_of(model, trace)).tolist()


@pytest.mark.parametrize("number", [1, 2])
def test_the_formula_equals_fvcore_for_the_dense_model(clip, captioned, number) -> None:
    """Exactly, for a model whose sizes all differ."""
    assert formula(clip, captioned[number]) == [fvcore_check.count_with_fvcore(clip, _inputs(captioned[number]))]


@pytest.mark.parametrize(
    ("method", "threshold_scale"), [("madtp", 0.0), ("madtp", 0.2), ("madtp-paper", 0.8), ("madtp-paper", 1e9)]
)
@pytest.mark.parametrize("number", [0, 2, 3])
def test_the_formula_equals_fvcore_for_a_pruned_model(
    attached_clip, captioned, number, method, threshold_scale
) -> None:
    """A text's two protected tokens are not scored. The fourth text has no other tokens."""
    model = attached_clip(method, threshold_scale)
    assert formula(model, captioned[number]) == [fvcore_check.count_with_fvcore(model, _inputs(captioned[number]))]


def test_the_formula_holds_if_our_method_prunes_texts(attached_clip, captioned) -> None:
    """By default it does not, but the settings allow it."""
    model, sample = attached_clip("madtp", 0.4, scales={}), captioned[2]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, _inputs(sample))]
    with torch.no_grad():
        assert model(**_inputs(sample)).trace["text"][-1].left[0] < 12


@pytest.mark.parametrize("method", ["madtp", "madtp-paper"])
def test_tokens_after_the_end_cost_nothing(attached_clip, collate, captioned, method) -> None:
    """In a padded batch without a mask, each sample costs the same as alone."""
    model = attached_clip(method, 0.6)
    alone = [formula(model, sample)[0] for sample in captioned]
    padded = {**collate(captioned, longest=16, padding=0), "attention_mask": None}
    assert formula(model, padded) == alone


@pytest.mark.parametrize("settings", [{}, {"min_keep": 2}, {"scales": {"text": [0.0, 1.0, 0.0, 1.0]}}])
@pytest.mark.parametrize("method", ["madtp", "madtp-paper"])
def test_the_lowest_cost_is_reached_at_the_largest_threshold_scale(
    attached_clip, collate, captioned, method, settings
) -> None:
    """A text keeps its start, its end and `min_keep` tokens. Lower budgets are refused."""
    model, batch = attached_clip(method, 1e9, **settings), _inputs(collate(captioned))
    with torch.no_grad():
        reached = sample_costs.counts_of(model, model(**batch).trace)
    least = sample_costs.least_counts(model, {"text": batch["attention_mask"].sum(1).tolist()})
    assert reached.keys() == least.keys()
    for tower, counts in reached.items():
        for one, other in zip(vars(counts).values(), vars(least[tower]).values(), strict=True):
            assert np.array_equal(one, other)


def test_the_published_figure_is_that_of_a_training_forward() -> None:
    """395.7 GFLOPs: every tower twice for momentum copies, 77 positions, and four products with queues.

    Our figure is for one image and one text up to its end, as retrieval runs them.
    """
    config = architectures()["clip-vit-l-14-336"]()
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [77]}))
    images, texts = (sample_costs.total(costs, tower).item() for tower in ("vision", "text"))
    whole_norm = 5 * 76 * 768  # the original code normalises all 77 positions and then takes the end
    queues = 4 * 768 * (57_600 + 1)
    assert 2 * (images + texts + whole_norm) + queues == 395_700_732_416
    ours = sample_costs.per_sample(config, sample_costs.dense_counts(config, {"text": [77, 12]}))
    assert ours[0] == images + texts + 768
    assert ours[1] < ours[0] < 0.5001 * 395_700_732_416


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("b-32", 151_277_313), ("b-16", 149_620_737), ("l-14", 427_616_513), ("l-14-336", 427_944_193)],
)
def test_published_architectures_have_the_published_size(name, parameters) -> None:
    """OpenAI's own numbers of parameters, the temperature included."""
    config = architectures()[f"clip-vit-{name}"]()
    with torch.device("meta"):
        model = models.get(models.kind_of(config))(config)
    assert sum(value.numel() for value in model.parameters()) == parameters


def test_the_cost_of_an_image_follows_from_its_tokens(clip, captioned) -> None:
    """Computed by hand: 37 tokens of width 48, inner width 80, 3 blocks, joint width 28."""
    costs = sample_costs.costs(clip.config, sample_costs.dense_counts(clip.config, {"text": [9]}))
    block = 4 * 37 * 48**2 + 2 * 37**2 * 48 + 2 * 37 * 48 * 80 + 2 * 5 * 37 * 48
    expected = 36 * 3 * 8 * 8 * 48 + 5 * 37 * 48 + 3 * block + 5 * 48 + 48 * 28
    assert sample_costs.total(costs, "vision").tolist() == [expected]
    assert retrieval.PROTECTED == {"vision": 1, "text": 2}
