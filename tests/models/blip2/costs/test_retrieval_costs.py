"""The FLOPs formula of BLIP-2 equals fvcore's count of our model and of transformers' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn
from transformers import Blip2Config, Blip2ForImageTextRetrieval

from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.sample_costs import GenerationCost
from madtp_cli.flops import fvcore_check
from madtp_cli.models import architectures
from tests import querying
from tests.drawing import attached
from tests.retrieving import Batch, collate, samples


def formula(model: Any, batch: Batch) -> list[int]:
    """Return the cost of each sample of a batch."""
    with torch.no_grad():
        found = sample_costs.counts_of(model, model(**batch).trace)
    costs: list[int] = sample_costs.per_sample(model.config, found).tolist()
    return costs


class Part(nn.Module):
    """One result of transformers' model, so that fvcore counts only what it needs."""

    def __init__(self, model: Any, part: str) -> None:
        super().__init__()
        self.model, self.part = model, part

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        if self.part == "images":
            states: Tensor = self.model.vision_model(pixels).last_hidden_state
            return states
        if self.part == "matching":
            # The model's own forward makes a mask of a wrong shape for the cross-attention while it is traced.
            queries = self.model.query_tokens
            states = self.model.qformer(
                query_embeds=self.model.embeddings(ids, query_embeds=queries),
                query_length=queries.shape[1],
                encoder_hidden_states=self.model.vision_model(pixels).last_hidden_state,
            ).last_hidden_state
            return torch.mean(self.model.itm_head(states[:, : queries.shape[1]]), 1)
        logits: Tensor = self.model(pixels, ids, mask).logits_per_image
        return logits


def _counted(part: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    analysis = FlopCountAnalysis(part, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("aten::scaled_dot_product_attention", fvcore_check._attention_flops)
    return int(analysis.total())


def of_transformers(config: Any, sample: Batch) -> int:
    """Return fvcore's count of transformers' model: similarity and match, the image tower once."""
    theirs = Blip2Config(
        vision_config=config.vision_config.to_dict(),
        qformer_config=config.text_config.to_dict(),
        num_query_tokens=config.num_query_tokens,
        image_text_hidden_size=config.image_text_hidden_size,
    )
    model, inputs = Blip2ForImageTextRetrieval(theirs).eval(), tuple(sample.values())
    with torch.no_grad():
        counts = {part: _counted(Part(model, part), inputs) for part in ("similarity", "matching", "images")}
    return int(counts["similarity"] + counts["matching"] - counts["images"])


def test_the_formula_equals_fvcore_for_transformers_model() -> None:
    """All three runs of the Q-Former, the heads, and the image tower once."""
    model, sample = querying.dense(), samples()[0]
    dense = sample_costs.dense_counts(model.config, {"text": [sample["input_ids"].shape[1]]})
    expected = of_transformers(model.config, sample)
    assert formula(model, sample) == sample_costs.per_sample(model.config, dense).tolist() == [expected]


@pytest.mark.parametrize(
    ("number", "threshold_scale", "method"),
    [(0, 0.0, "madtp"), (0, 0.5, "madtp"), (2, 0.9, "madtp-paper"), (2, 1.0, "madtp-released")],
)
def test_the_formula_equals_fvcore_for_a_pruned_model(number, threshold_scale, method) -> None:
    """Images and texts are pruned, the queries are not."""
    model, sample = attached(querying.dense(), threshold_scale, method=method), samples()[number]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, sample)]


def test_the_cost_of_a_sample_does_not_depend_on_its_batch() -> None:
    """Padding is not counted."""
    model, each = attached(querying.dense(), 0.4), samples()
    assert formula(model, collate(each, longest=16)) == [formula(model, sample)[0] for sample in each]


@pytest.mark.parametrize("settings", [{}, {"method": "madtp-paper"}, {"scales": {"text": [0.0, 0.0, 1.0]}}])
def test_the_lowest_cost_is_reached_at_the_largest_threshold_scale(settings) -> None:
    """The queries and the pairs keep their tokens."""
    model, batch = attached(querying.dense(), 1e9, **settings), collate(samples())
    with torch.no_grad():
        reached = sample_costs.counts_of(model, model(**batch).trace)
    least = sample_costs.least_counts(model, {"text": batch["attention_mask"].sum(1).tolist()})
    assert reached.keys() == least.keys()
    for tower, counts in reached.items():
        for one, other in zip(vars(counts).values(), vars(least[tower]).values(), strict=True):
            assert np.array_equal(one, other)


def test_matching_costs_the_pair_of_the_forward() -> None:
    """One text per image: the same run of the Q-Former and the same head."""
    model, sample = attached(querying.dense(), 0.5), samples()[0]
    with torch.no_grad():
        output = model(**sample)
        counts = sample_costs.counts_of(model, output.trace)
        cost = GenerationCost(model.config)
        model.match(output.memory, sample["input_ids"], sample["attention_mask"], None, cost.recorder(counts))
    layers = sample_costs.costs(model.config, counts)
    head = next(layer.flops for layer in layers if layer.name == "matching")
    assert cost.total == int(sample_costs.total(layers, "pair")[0] + head[0])


@pytest.mark.parametrize(("name", "tokens"), [("blip2-itm", 257), ("blip2-itm-coco", 677)])
def test_published_architectures_have_a_formula(name, tokens) -> None:
    """The image tower is nearly all of the cost; its 39 layers have the width 1,408."""
    config: Any = architectures()[name]()
    counts = sample_costs.dense_counts(config, {"text": [35]})
    assert counts["vision"].entered[:, 0, 0].tolist() == [tokens] * 39
    costs = sample_costs.costs(config, counts)
    layer = 4 * tokens * 1408**2 + 2 * tokens**2 * 1408 + 2 * tokens * 1408 * 6144 + 2 * 5 * tokens * 1408
    assert int(sample_costs.total(costs, "vision")[0]) == (
        39 * layer + (tokens - 1) * 3 * 14**2 * 1408 + 5 * tokens * 1408
    )
