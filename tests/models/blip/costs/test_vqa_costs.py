"""The FLOPs formula of BLIP for VQA equals fvcore, and the parts of the literature's figure."""

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
    """Return the cost of each sample of a batch."""
    with torch.no_grad():
        return sample_costs.per_sample(
            model.config, sample_costs.counts_of(model, model(**_inputs(batch)).trace)
        ).tolist()


def _lengths(batch: Batch) -> dict[str, list[int]]:
    return {"text": batch["attention_mask"].sum(1).tolist(), "decoder": batch["decoder_attention_mask"].sum(1).tolist()}


def test_the_formula_equals_fvcore_for_the_dense_model() -> None:
    """Image, question, answer and one logit per word piece, with sizes that all differ."""
    model, sample = vqa(), questions()[1]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, _inputs(sample))]
    dense = sample_costs.dense_counts(model.config, _lengths(sample))
    assert sample_costs.per_sample(model.config, dense).tolist() == formula(model, sample)


@pytest.mark.parametrize(
    ("number", "threshold_scale", "method"),
    [(0, 0.0, "madtp"), (0, 0.4, "madtp"), (2, 1e9, "madtp"), (2, 0.4, "madtp-paper")],
)
def test_the_formula_equals_fvcore_for_a_pruned_model(number, threshold_scale, method) -> None:
    """The decoder is not pruned, but the question that it attends to is."""
    model, sample = attached(vqa(), threshold_scale, method=method), questions()[number]
    assert formula(model, sample) == [fvcore_check.count_with_fvcore(model, _inputs(sample))]


def test_the_cost_of_a_sample_does_not_depend_on_its_batch() -> None:
    """Padding of questions and answers is not counted."""
    model, each = attached(vqa(), 0.4), questions()
    assert formula(model, collate(each, extra=3)) == [formula(model, sample)[0] for sample in each]


@pytest.mark.parametrize("settings", [{}, {"min_keep": 2}, {"method": "madtp-paper"}, {"scales": {"text": [0.0, 0.0]}}])
def test_the_lowest_cost_is_reached_at_the_largest_threshold_scale(settings) -> None:
    """The answer is counted in full. A lower budget is refused before training."""
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
def test_one_question_and_one_answer_have_the_cost_of_the_original_code(question, answer, known) -> None:
    """At 480 pixels, measured with the original code's own function."""
    config = architectures()["blip-vqa-base"]()
    counts = sample_costs.dense_counts(config, {"text": [question], "decoder": [answer]})
    assert sample_costs.per_sample(config, counts).tolist() == [known]


@pytest.mark.parametrize(
    ("question", "answer", "known"),
    [(14, 5, 186_121_346_304), (13, 5, 182_380_061_952), (14, 6, 191_936_628_480)],
)
def test_the_literatures_figure_is_a_training_batch(question, answer, known) -> None:
    """186.1 GFLOPs: one image with 32 padded questions and 47 padded answers. It is not the cost of a sample.

    The image's keys and values are computed once for all questions. All answers attend to one question.
    """
    config = architectures()["blip-vqa-base"]()
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [question], "decoder": [answer]}))
    vision, text, decoder = (int(sample_costs.total(costs, tower)[0]) for tower in ("vision", "text", "decoder"))
    image_keys, question_keys = (12 * 2 * seen * 768**2 for seen in (901, question))
    assert vision + 32 * text - 31 * image_keys + 47 * decoder - 46 * question_keys == known


def test_dummy_inputs_are_counted() -> None:
    """For `profile --text-tokens`: a question of that length and an answer of one word."""
    model = vqa()
    counts = sample_costs.dense_counts(model.config, {"text": [7], "decoder": [3]})
    assert formula(model, model.dummy_inputs(7)) == sample_costs.per_sample(model.config, counts).tolist()


def test_blip_large_has_the_published_sizes() -> None:
    """Only the image tower is larger, and the question attends to wider tokens."""
    config = architectures()["blip-vqa-large"]()
    costs = sample_costs.costs(config, sample_costs.dense_counts(config, {"text": [14], "decoder": [5]}))
    block = 4 * 901 * 1024**2 + 2 * 901**2 * 1024 + 8 * 901 * 1024**2 + 10 * 901 * 1024
    assert sample_costs.total(costs, "vision")[0] == 900 * 1024 * 768 + 24 * block + 5 * 901 * 1024
    base = architectures()["blip-vqa-base"]()
    small = sample_costs.costs(base, sample_costs.dense_counts(base, {"text": [14], "decoder": [5]}))
    wider = 12 * 2 * 901 * (1024 - 768) * 768
    assert sample_costs.total(costs, "text")[0] - sample_costs.total(small, "text")[0] == wider
    assert sample_costs.total(costs, "decoder").tolist() == sample_costs.total(small, "decoder").tolist()
