"""The multiply-adds of one forward pass: on tokens by the formula, and as executed, padding included."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.compute import Batch, ComputeConfig
from madtp_cli.execution.block_trace import TokenTrace
from madtp_cli.models.prunable import Prunable


def inference_of(compute: ComputeConfig, *models: Any) -> contextlib.AbstractContextManager[None]:
    """Return an inference context that casts the weights of the models.

    A benchmark may pass objects that are called like a model but are no modules; their weights are not cast.
    """
    return compute.inference(*(model for model in models if isinstance(model, nn.Module)))


def forward(model: Prunable, batch: Batch, compute: ComputeConfig) -> Any:
    """Run one forward pass and wait until the device has finished it."""
    output = model(**batch)
    if compute.device.type != "cpu":
        torch.accelerator.synchronize(compute.device)
    return output


def useful_multiply_adds(model: Prunable, trace: TokenTrace) -> float:
    """Return the multiply-adds of a forward pass on tokens, by the formula."""
    return float(sample_costs.per_sample(model.config, sample_costs.counts_of(model, trace)).sum())


def multiply_adds(model: Prunable, batch: Batch, compute: ComputeConfig) -> tuple[float, float]:
    """Return the multiply-adds of one forward pass of a batch: on tokens by the formula, and as executed.

    The second figure includes what attention and pruning compute on padding, if the attention backend pads. torch's
    counter sees all matrix products. What it does not see (layer norms) is the same without padding.
    """
    with inference_of(compute, model):
        forward(model, batch, compute)  # fills caches of the model, which are no part of a forward pass
        useful, counted = _counted(model, batch, compute)
        backend, model.backend = model.backend, "loop"
        try:
            useful_alone, counted_alone = _counted(model, batch, compute)
        finally:
            model.backend = backend
    return useful, counted + useful_alone - counted_alone


def _counted(model: Prunable, batch: Batch, compute: ComputeConfig) -> tuple[float, float]:
    """Return the multiply-adds of one forward pass by the formula, and those of the executed matrix products."""
    # The counter does not know torch's attention kernel for CPUs.
    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        output = forward(model, batch, compute)
    return useful_multiply_adds(model, output.trace), counter.get_total_flops() / 2


def _attention_flops(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, out_shape: Any, **__: Any
) -> int:
    """Return the FLOPs of attention between tensors of these shapes; the counter counts a multiply-add as two."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
