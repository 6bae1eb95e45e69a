"""One pass over samples: answers, scores, token counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from madtp_cli import tasks
from madtp_cli.data import Row
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import run, sample_costs
from madtp_cli.evaluation.run import ComputeConfig

TASK = tasks.get("nlvr2")
ROWS = [Row(str(number), (), "a ring", number % 2) for number in range(5)]
CPU = ComputeConfig(torch.device("cpu"), torch.float32)


@pytest.fixture
def batches(collate, samples):
    """Five samples in batches of two, two and one."""
    return [collate(samples[start : start + 2]) for start in (0, 2, 4)]


def test_a_pass_answers_scores_and_counts_every_sample_in_order(attached, batches, collate, samples) -> None:
    """The same whatever the batch size, or two runs could not be compared sample by sample."""
    model = attached(0.4)
    done: list[int] = []
    measured = run.run(model, batches, TASK, CPU, ROWS, done.append)
    whole = run.run(model, [collate(samples)], TASK, CPU, ROWS)
    assert done == [2, 4, 5]
    assert measured.answers == whole.answers
    assert measured.scores == [float(answer == label) for answer, label in zip(measured.answers, [0, 1, 0, 1, 0],
                                                                              strict=True)]  # fmt: skip
    assert measured.gflops(model).tolist() == whole.gflops(model).tolist()
    assert len(set(measured.gflops(model).tolist())) == 5


def test_without_labels_there_are_answers_and_no_scores(attached, batches) -> None:
    """Calibration needs none."""
    for batch in batches:
        batch.pop("labels")
    measured = run.run(attached(0.4), batches, TASK, CPU)
    assert (len(measured.answers), measured.scores) == (5, [])


def test_a_dense_model_is_counted_without_a_trace(blip, attached, batches) -> None:
    """By its texts' true lengths: as a model at knob 0 is."""
    dense = run.run(blip, batches, TASK, CPU)
    knob_zero, model = run.run(attached(0.0), batches, TASK, CPU), attached(0.0)
    assert dense.gflops(blip).tolist() == knob_zero.gflops(model).tolist()
    assert dense.counts["text"].entered[0].ravel().tolist() == [9, 4, 12, 2, 7]


def test_the_mean_cost_is_that_of_the_samples_not_of_the_batches(attached, batches) -> None:
    """The last batch is smaller."""
    model = attached(0.4)
    each = run.run(model, batches, TASK, CPU).gflops(model)
    assert run.mean_gflops(model, batches, CPU) == pytest.approx(sum(each) / 5, rel=1e-12)


def test_a_dense_model_has_no_knob(blip) -> None:
    """Setting one would prune with a dictionary that is not there."""
    with pytest.raises(ValueError, match="attach one first"):
        run.set_threshold_scale(blip, 1.0)
    assert blip.pruning is None


def test_layers_sum_to_the_total_and_tell_their_tokens(attached, batches) -> None:
    """The table of a report must add up to the number above it."""
    model = attached(0.4)
    measured = run.run(model, batches, TASK, CPU)
    layers = run.layer_parts(model, measured.counts)
    towers = run.by_tower(layers)
    assert sum(layer.gflops for layer in layers) == pytest.approx(measured.gflops(model).mean())
    assert sum(towers.values()) == pytest.approx(measured.gflops(model).mean())
    assert towers.keys() == {"vision", "text", "head"}
    for tower, inputs in (("vision", 10), ("text", 5)):
        blocks = [layer for layer in layers if layer.tower == tower and layer.tokens_in is not None]
        assert len(blocks) == 3
        assert all(before.tokens_out == after.tokens_in for before, after in pairwise(blocks))
        left = measured.counts[tower].left[-1].ravel()
        assert left.shape == (inputs,)
        assert blocks[-1].tokens_out == pytest.approx(left.mean())
        assert blocks[-1].tokens_out_p5 == pytest.approx(np.percentile(left, 5))
        assert blocks[-1].tokens_out_p95 == pytest.approx(np.percentile(left, 95))


def test_half_precision_is_for_the_forward_alone(attached, batches) -> None:
    """Weights stay as they are, and the counts stay near those of full precision."""
    model, half = attached(0.4), ComputeConfig.of("cpu", "bfloat16")
    measured = run.run(model, batches, TASK, half)
    full = run.run(model, batches, TASK, CPU)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert measured.gflops(model).mean() == pytest.approx(full.gflops(model).mean(), rel=0.05)


def test_matrices_are_cast_once_for_all_forwards(attached, batches) -> None:
    """To what autocast makes of them in each forward; afterwards they are what they were, also after an error."""
    model, half, batch = attached(0.4), ComputeConfig.of("cpu", "bfloat16"), run.inputs_of(next(iter(batches)))
    before = {name: value.data_ptr() for name, value in model.named_parameters()}
    with torch.inference_mode(), half.precision():
        expected = model(**batch).logits
    with half.inference(model):
        dtypes = {type(part): part.weight.dtype for part in model.modules() if hasattr(part, "weight")}
        assert torch.equal(model(**batch).logits, expected)
    assert dtypes[nn.Linear] == torch.bfloat16
    assert dtypes[nn.Conv2d] == dtypes[nn.LayerNorm] == dtypes[nn.Embedding] == torch.float32
    with pytest.raises(ZeroDivisionError), half.inference(model):
        raise ZeroDivisionError
    assert {name: value.data_ptr() for name, value in model.named_parameters()} == before
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_auto_means_float32_on_what_there_is() -> None:
    """Speed in half precision is asked for, not guessed."""
    compute = ComputeConfig.of("auto", "auto")
    assert compute.dtype == torch.float32
    assert compute.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    """Before anything is loaded, with what to use instead."""
    with pytest.raises(UsageError, match=r"--device cuda:7 cannot be used here(?s:.)*--device cpu"):
        ComputeConfig.of("cuda:7", "auto")


def test_the_floor_is_below_every_measured_cost(attached, batches) -> None:
    """And equals it at full strength."""
    model = attached(1e9)
    floor = sample_costs.per_sample(model.config, sample_costs.least_counts(model, {"text": [9, 4, 12, 2, 7]})) / 1e9
    assert run.run(model, batches, TASK, CPU).gflops(model).tolist() == floor.tolist()
    run.set_threshold_scale(model, 1.5)
    assert (run.run(model, batches, TASK, CPU).gflops(model) >= floor).all()


def test_answers_cost_what_was_heard_of(attached, batches) -> None:
    """Per answer, and nothing where a forward answers by itself; the dense model's own pass goes before a guess."""
    model = attached(0.4)
    measured = run.run(model, batches, TASK, CPU)
    assert run.answering(TASK, model, measured) is None
    measured.search.own, measured.search.dense = 10 * 10**9, 20 * 10**9
    alone = run.answering(TASK, model, measured)
    assert alone is not None
    assert (alone.answers, alone.dense, alone.pruned, alone.share) == (5, 4.0, 2.0, 0.5)
    before = replace(measured, search=sample_costs.GenerationCost(model.config))
    before.search.own = 40 * 10**9
    beside = run.answering(TASK, model, measured, before)
    assert beside is not None
    assert (beside.dense, beside.share) == (8.0, 0.25)
