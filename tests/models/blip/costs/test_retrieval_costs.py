"""The FLOPs formula of BLIP for retrieval equals fvcore, and the parts of the literature's figure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from madtp_cli.evaluation import sample_costs
from madtp_cli.flops import fvcore_check
from madtp_cli.flops.parts import cross_attention, norm
from madtp_cli.models import architectures
from tests.retrieving import Batch, attached, collate, dense, samples


def formula(model, batch: Batch) -> list[int]:
    """Return the cost of each sample of a batch."""
    with torch.no_grad():
        return sample_costs.per_sample(model.config, sample_costs.counts_of(model, model(**batch).trace)).tolist()


def test_the_formula_equals_fvcore_for_the_dense_model() -> None:
    """Both runs of the text encoder, both embeddings and the matching head."""
    model, sample = dense(), samples()[0]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, sample)]
    lengths = {"text": [sample["input_ids"].shape[1]]}
    assert sample_costs.per_sample(model.config, sample_costs.dense_counts(model.config, lengths)).tolist() == formula(
        model, sample
    )


@pytest.mark.parametrize(("number", "threshold_scale", "method"), [(0, 0.5, "madtp"), (2, 0.9, "madtp-paper")])
def test_the_formula_equals_fvcore_for_a_pruned_model(number, threshold_scale, method) -> None:
    """Both runs of the text encoder are pruned. Dictionary and merging are part of the cost."""
    model, sample = attached(dense(), threshold_scale, method=method), samples()[number]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, sample)]


def test_the_cost_of_a_sample_does_not_depend_on_its_batch() -> None:
    """Padding is not counted."""
    model, each = attached(dense(), 0.4), samples()
    assert formula(model, collate(each, longest=16)) == [formula(model, sample)[0] for sample in each]


@pytest.mark.parametrize("settings", [{}, {"method": "madtp-paper"}, {"scales": {"text": [0.0, 0.0]}},
                                      {"scales": {"text": [0.0, 1.0], "vision": [0.0, 1.0, 0.0]}}])  # fmt: skip
def test_the_lowest_cost_is_reached_at_the_largest_threshold_scale(settings) -> None:
    """Both runs of the text encoder have the same lowest cost."""
    model, batch = attached(dense(), 1e9, **settings), collate(samples())
    with torch.no_grad():
        reached = sample_costs.counts_of(model, model(**batch).trace)
    least = sample_costs.least_counts(model, {"text": batch["attention_mask"].sum(1).tolist()})
    assert reached.keys() == least.keys()
    for tower, counts in reached.items():
        for one, other in zip(vars(counts).values(), vars(least[tower]).values(), strict=True):
            assert np.array_equal(one, other)


def test_the_literatures_figure_is_a_training_forward() -> None:
    """153.2 GFLOPs: both towers and their momentum copies, three matching runs, and four products with a queue.

    Our figure is for one image, one text and one match of one sample. It is less than half.
    """
    config: Any = architectures()["blip-retrieval-base"]()
    tokens, queue = 35, 57_600
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [tokens]}))
    vision, text, pair = (int(sample_costs.total(costs, tower)[0]) for tower in ("vision", "text", "pair"))
    embeddings, matching = (int(cost.flops[0]) for cost in costs if cost.tower == "head")
    products = 4 * config.image_text_hidden_size * (queue + 1)
    assert 2 * (vision + text + embeddings) + 3 * (pair + matching) + products == 153_242_530_048
    ours = vision + text + pair + embeddings + matching
    assert ours == int(sample_costs.total(costs)[0]) < 153_242_530_048 / 2
    looks = 12 * int(cross_attention(np.array(tokens), np.array(577), 768, 768) + norm(np.array(tokens), 768))
    assert pair == text + looks


@pytest.mark.parametrize("name", ["blip-retrieval-base", "blip-retrieval-large"])
def test_published_architectures_have_a_formula(name) -> None:
    """The image tower of BLIP-large has width 1024, its text tower 768."""
    config: Any = architectures()[name]()
    assert config.task == "retrieval"
    widths = {"base": 768, "large": 1024}
    assert config.vision_config.hidden_size == widths[name.rsplit("-", 1)[1]] == config.text_config.encoder_hidden_size
    assert sample_costs.per_sample(config, sample_costs.dense_counts(config, {"text": [12, 35]})).shape == (2,)
