"""Pruning before the first block, where no attention is known."""

from __future__ import annotations

import pytest
import torch

from madtp_cli.compression.distillation import step_losses
from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.recorded_tokens import image_inputs
from madtp_cli.flops import fvcore_check
from tests.execution.test_token_record import PROCESSOR

#: No block prunes.
BEFORE_ALONE = {"vision": [0.0] * 3, "text": [0.0] * 3}


@pytest.fixture
def model(attached):
    """A model that prunes before the first block and nowhere else."""
    return attached(1.0, method="madtp", scales=BEFORE_ALONE, embedding_scale=1.0)


def inputs(sample):
    """Return a sample without its label."""
    return {name: value for name, value in sample.items() if name != "labels"}


def test_all_blocks_compute_the_remaining_tokens(model, collate, samples) -> None:
    """The trace begins with the embedded tokens; the first block attends to those that are left."""
    with torch.no_grad():
        blocks = model(**collate(samples)).trace["vision"]
    first = blocks[0]
    assert first.entered == [37] * 10
    assert first.embedding is not None
    assert first.attended == first.embedding.left == first.left
    assert max(first.left) < 37
    assert len(set(first.left)) > 1
    assert not any(block.scored for block in blocks)
    assert all(block.attended == block.entered == first.left for block in blocks[1:])
    positions = first.embedding.positions
    assert positions is not None
    assert len(positions) == sum(first.left)


@pytest.mark.parametrize("number", [0, 1])
def test_the_formula_is_fvcores_count(model, samples, number) -> None:
    """The dictionary and the search for similar patches are counted; the blocks score nothing."""
    sample = inputs(samples[number])
    with torch.no_grad():
        counts = sample_costs.counts_of(model, model(**sample).trace)
    assert float(sample_costs.per_sample(model.config, counts)[0]) == fvcore_check.count_with_fvcore(model, sample)


def test_the_least_cost_includes_it(model, collate, samples) -> None:
    """At an infinite threshold scale each image keeps [CLS] and one patch."""
    lengths = {"text": collate(samples)["attention_mask"].sum(1).tolist()}
    counts = sample_costs.least_counts(model, lengths)["vision"]
    assert counts.entered[0].ravel().tolist() == [37] * 10
    assert counts.attended[0].ravel().tolist() == counts.left[-1].ravel().tolist() == [2] * 10


def test_kept_tokens_are_compared_with_the_teachers_tokens(model, blip, collate, samples) -> None:
    """The loss on the kept tokens knows their positions although no block pruned."""
    batch = collate(samples)
    with torch.no_grad():
        targets = blip(**batch, return_targets=True).targets
        losses = step_losses(model(**batch, return_targets=True), targets, 5)
    assert 0 < float(losses["tokens"]) < 10


def test_the_pictures_begin_before_the_first_block(model, samples) -> None:
    """`madtp show` draws it as it draws a block."""
    model.records_tokens = True
    with torch.inference_mode():
        output = model(**inputs(samples[0]))
    images = image_inputs(model, output.trace, inputs(samples[0]), PROCESSOR)
    for image in images:
        (before,) = image.blocks
        assert (before.number, before.when) == (0, "before block 1")
        assert before.tokens == len(before.kept) + 1 < 37
        assert all(weight is not None for weight in before.weights)
