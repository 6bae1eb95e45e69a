"""The FLOPs formula of BLIP for captions equals fvcore and the literature's figure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from madtp_cli.evaluation import sample_costs
from madtp_cli.flops import fvcore_check
from madtp_cli.models import architectures
from madtp_cli.pipelines.profile_without_data import without_weights
from tests.decoding import Batch, attached, captioner, captions, collate


def _inputs(sample: Batch) -> Batch:
    return {name: value for name, value in sample.items() if name != "labels"}


def formula(model, batch: Batch) -> list[int]:
    """Return the cost of each sample of a batch."""
    with torch.no_grad():
        return sample_costs.per_sample(
            model.config, sample_costs.counts_of(model, model(**_inputs(batch)).trace)
        ).tolist()


@pytest.mark.parametrize(
    ("number", "threshold_scale", "method"),
    [(1, 0.0, "madtp"), (1, 0.4, "madtp"), (2, 1e9, "madtp"), (2, 0.4, "madtp-paper")],
)
def test_the_formula_equals_fvcore(number, threshold_scale, method) -> None:
    """The caption is not pruned, but it attends to fewer image tokens. Threshold scale 0 is the dense model."""
    model, sample = attached(captioner(), threshold_scale, method=method), captions()[number]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, _inputs(sample))]


def test_a_dense_model_is_counted_without_a_forward() -> None:
    """The captions' lengths are enough."""
    model, batch = captioner(), collate(captions(), extra=2)
    dense = sample_costs.dense_counts(model.config, {"decoder": batch["attention_mask"].sum(1).tolist()})
    assert sample_costs.per_sample(model.config, dense).tolist() == formula(model, batch)


@pytest.mark.parametrize("settings", [{}, {"method": "madtp-paper"}, {"scales": {"vision": [0.0, 1.0, 0.0]}}])
def test_the_lowest_cost_is_reached_at_the_largest_threshold_scale(settings) -> None:
    """No method prunes the decoder."""
    model, batch = attached(captioner(), 1e9, **settings), collate(captions())
    with torch.no_grad():
        reached = sample_costs.counts_of(model, model(**_inputs(batch)).trace)
    least = sample_costs.least_counts(model, {"decoder": batch["attention_mask"].sum(1).tolist()})
    assert reached.keys() == least.keys() == {"vision", "decoder"}
    for tower, counts in reached.items():
        for one, other in zip(vars(counts).values(), vars(least[tower]).values(), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(("tokens", "known"), [(15, 65_719_562_496), (8, 64_779_267_840), (30, 67_740_562_176)])
def test_blip_base_has_the_published_cost(tokens, known) -> None:
    """65.7 GFLOPs is the literature's figure: one image and one teacher-forced caption of 15 tokens."""
    config = architectures()["blip-caption-base"]()
    counts = sample_costs.dense_counts(config, {"decoder": [tokens]})
    assert sample_costs.per_sample(config, counts).tolist() == [known]


def test_an_architecture_without_weights_has_tied_embeddings() -> None:
    """Otherwise `profile --arch` would count 23 million parameters twice. The original model has 223,971,644."""
    model = without_weights("blip-caption-base")
    assert sum(parameter.numel() for parameter in model.parameters()) == 223_971_644
