"""One pass over samples: answers, scores and token counts, and the parts of a report made of them."""

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
from madtp_cli.evaluation import report_parts, run, sample_costs
from madtp_cli.evaluation.compute import ComputeConfig, inputs_of

TASK = tasks.get("nlvr2")
ROWS = [Row(str(number), (), "a ring", number % 2) for number in range(5)]
CPU = ComputeConfig(torch.device("cpu"), torch.float32)


@pytest.fixture
def batches(collate, samples):
    """Five samples in batches of two, two and one."""
    return [collate(samples[start : start + 2]) for start in (0, 2, 4)]


def test_a_pass_returns_answers_scores_and_costs_in_order(attached, batches, collate, samples) -> None:
    """They do not depend on the batch size, so two runs can be compared sample by sample."""
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


def test_without_labels_there_are_answers_but_no_scores(attached, batches) -> None:
    """Calibration needs none."""
    for batch in batches:
        batch.pop("labels")
    measured = run.run(attached(0.4), batches, TASK, CPU)
    assert (len(measured.answers), measured.scores) == (5, [])


def test_a_dense_model_costs_as_much_as_threshold_scale_zero(blip, attached, batches) -> None:
    """Texts count with their length without padding."""
    dense = run.run(blip, batches, TASK, CPU)
    at_zero, model = run.run(attached(0.0), batches, TASK, CPU), attached(0.0)
    assert dense.gflops(blip).tolist() == at_zero.gflops(model).tolist()
    assert dense.counts["text"].entered[0].ravel().tolist() == [9, 4, 12, 2, 7]


def test_the_mean_cost_is_a_mean_over_samples(attached, batches) -> None:
    """A mean over batches would be wrong, because the last batch is smaller."""
    model = attached(0.4)
    each = run.run(model, batches, TASK, CPU).gflops(model)
    assert run.mean_gflops(model, batches, CPU) == pytest.approx(sum(each) / 5, rel=1e-12)


def test_a_dense_model_has_no_threshold_scale(blip) -> None:
    """It has no dictionary to prune with."""
    with pytest.raises(ValueError, match="call attach first"):
        run.set_threshold_scale(blip, 1.0)
    assert blip.pruning is None


def test_layers_sum_to_the_total_and_have_token_counts(attached, batches) -> None:
    """The table of a report must add up to the total."""
    model = attached(0.4)
    measured = run.run(model, batches, TASK, CPU)
    layers = report_parts.layer_parts(model, measured.counts)
    towers = report_parts.by_tower(layers)
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


def test_half_precision_applies_to_the_forward_pass_only(attached, batches) -> None:
    """The weights keep their format, and the cost is close to that of full precision."""
    model, half = attached(0.4), ComputeConfig.of("cpu", "bfloat16")
    measured = run.run(model, batches, TASK, half)
    full = run.run(model, batches, TASK, CPU)
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert measured.gflops(model).mean() == pytest.approx(full.gflops(model).mean(), rel=0.05)


def test_matrices_are_cast_once_for_all_forward_passes(attached, batches) -> None:
    """The outputs equal those of autocast. Afterwards the weights are the original ones, also after an error."""
    model, half, batch = attached(0.4), ComputeConfig.of("cpu", "bfloat16"), inputs_of(next(iter(batches)))
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


def test_auto_means_float32_on_the_available_device() -> None:
    """Half precision is used only if the user asks for it."""
    compute = ComputeConfig.of("auto", "auto")
    assert compute.dtype == torch.float32
    assert compute.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_missing_device_is_refused() -> None:
    """The message names the device and what to use instead."""
    with pytest.raises(UsageError, match=r"--device cuda:7 cannot be used here(?s:.)*--device cpu"):
        ComputeConfig.of("cuda:7", "auto")


def test_the_floor_is_below_every_measured_cost(attached, batches) -> None:
    """It equals the cost at a very large threshold scale."""
    model = attached(1e9)
    floor = sample_costs.per_sample(model.config, sample_costs.least_counts(model, {"text": [9, 4, 12, 2, 7]})) / 1e9
    assert run.run(model, batches, TASK, CPU).gflops(model).tolist() == floor.tolist()
    run.set_threshold_scale(model, 1.5)
    assert (run.run(model, batches, TASK, CPU).gflops(model) >= floor).all()


def test_the_generation_cost_is_given_per_answer(attached, batches) -> None:
    """There is none without text runs. If the dense model has run, its own cost is the dense figure."""
    model = attached(0.4)
    measured = run.run(model, batches, TASK, CPU)
    assert report_parts.generation_part(TASK, model, measured) is None
    measured.generation.total, measured.generation.dense = 10 * 10**9, 20 * 10**9
    alone = report_parts.generation_part(TASK, model, measured)
    assert alone is not None
    assert (alone.answers, alone.dense, alone.pruned, alone.share) == (5, 4.0, 2.0, 0.5)
    dense = replace(measured, generation=sample_costs.GenerationCost(model.config))
    dense.generation.total = 40 * 10**9
    compared = report_parts.generation_part(TASK, model, measured, dense)
    assert compared is not None
    assert (compared.dense, compared.share) == (8.0, 0.25)
