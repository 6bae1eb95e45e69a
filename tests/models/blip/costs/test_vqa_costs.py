"""What BLIP for VQA costs: fvcore's count to the digit, and what the literature's figure is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from madtp_cli.evaluation import sample_costs
from madtp_cli.flops import fvcore_check
from madtp_cli.models import architectures
from tests.decoding import Batch, attached, collate, questions, vqa


def _inputs(sample: Batch) -> Batch:
    return {name: value for name, value in sample.items() if name != "labels"}


def formula(model, batch: Batch) -> list[int]:
    """Cost of each sample of a batch."""
    with torch.no_grad():
        return sample_costs.per_sample(
            model.config, sample_costs.counts_of(model, model(**_inputs(batch)).trace)
        ).tolist()


def _lengths(batch: Batch) -> dict[str, list[int]]:
    return {"text": batch["attention_mask"].sum(1).tolist(), "decoder": batch["decoder_attention_mask"].sum(1).tolist()}


def test_the_formula_is_fvcores_count_of_the_dense_model() -> None:
    """Image, question, answer and a logit for each word, with every size another."""
    model, sample = vqa(), questions()[1]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, _inputs(sample))]
    dense = sample_costs.dense_counts(model.config, _lengths(sample))
    assert sample_costs.per_sample(model.config, dense).tolist() == formula(model, sample)


@pytest.mark.parametrize(
    ("number", "threshold_scale", "method"),
    [(0, 0.0, "madtp"), (0, 0.4, "madtp"), (2, 1e9, "madtp"), (2, 0.4, "madtp-paper")],
)
def test_the_formula_is_fvcores_count_of_a_pruned_model(number, threshold_scale, method) -> None:
    """The decoder is not pruned, but what it looks at is."""
    model, sample = attached(vqa(), threshold_scale, method=method), questions()[number]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, _inputs(sample))]


def test_a_sample_costs_in_a_batch_what_it_costs_alone() -> None:
    """Padding of questions and of answers is no part of anyone's cost."""
    model, each = attached(vqa(), 0.4), questions()
    assert formula(model, collate(each, extra=3)) == [formula(model, sample)[0] for sample in each]


@pytest.mark.parametrize("settings", [{}, {"min_keep": 2}, {"method": "madtp-paper"}, {"scales": {"text": [0.0, 0.0]}}])
def test_the_floor_is_reached_at_full_strength(settings) -> None:
    """The answer counts whole in it: a budget below is refused before training."""
    model, batch = attached(vqa(), 1e9, **settings), collate(questions())
    with torch.no_grad():
        reached = sample_costs.counts_of(model, model(**_inputs(batch)).trace)
    least = sample_costs.least_counts(model, _lengths(batch))
    assert reached.keys() == least.keys() == {"vision", "text", "decoder"}
    for tower, counts in reached.items():
        for one, other in zip(vars(counts).values(), vars(least[tower]).values(), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("question", "answer", "known"), [(14, 5, 107_302_576_896), (10, 5, 106_780_456_704), (14, 4, 107_178_884_352)]
)
def test_one_question_and_one_answer_cost_what_the_original_code_measured(question, answer, known) -> None:
    """At 480 pixels, by the original's own measuring function."""
    config = architectures()["blip-vqa-base"]()
    counts = sample_costs.dense_counts(config, {"text": [question], "decoder": [answer]})
    assert sample_costs.per_sample(config, counts).tolist() == [known]


@pytest.mark.parametrize(
    ("question", "answer", "known"),
    [(14, 5, 186_121_346_304), (13, 5, 182_380_061_952), (14, 6, 191_936_628_480)],
)
def test_the_literatures_figure_is_a_training_batch(question, answer, known) -> None:
    """186.1 GFLOPs: one image with 32 padded questions and 47 padded answers, no sample's cost.

    The image's keys and values are computed once for all questions, and the answers all look at one question.
    """
    config = architectures()["blip-vqa-base"]()
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [question], "decoder": [answer]}))
    vision, text, decoder = (int(sample_costs.total(costs, tower)[0]) for tower in ("vision", "text", "decoder"))
    image_keys, question_keys = (12 * 2 * seen * 768**2 for seen in (901, question))
    assert vision + 32 * text - 31 * image_keys + 47 * decoder - 46 * question_keys == known


def test_a_blank_sample_is_counted() -> None:
    """For `profile --text-tokens`: a question of that length and an answer of one word."""
    model = vqa()
    counts = sample_costs.dense_counts(model.config, {"text": [7], "decoder": [3]})
    assert formula(model, model.dummy_inputs(7)) == sample_costs.per_sample(model.config, counts).tolist()


def test_large_models_have_published_sizes() -> None:
    """The image tower alone is larger, and the question looks at tokens of its width."""
    config = architectures()["blip-vqa-large"]()
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [14], "decoder": [5]}))
    block = 4 * 901 * 1024**2 + 2 * 901**2 * 1024 + 8 * 901 * 1024**2 + 10 * 901 * 1024
    assert sample_costs.total(costs, "vision")[0] == 900 * 1024 * 768 + 24 * block + 5 * 901 * 1024
    base = architectures()["blip-vqa-base"]()
    small = sample_costs.costs(base, sample_costs.dense_counts(base, {"text": [14], "decoder": [5]}))
    wider = 12 * 2 * 901 * (1024 - 768) * 768
    assert sample_costs.total(costs, "text")[0] - sample_costs.total(small, "text")[0] == wider
    assert sample_costs.total(costs, "decoder").tolist() == sample_costs.total(small, "decoder").tolist()
