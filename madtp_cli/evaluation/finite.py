"""Stop a run whose model computes NaN or infinite values: they must not be scored, or prune tokens at random.

A checkpoint whose weights are NaN is refused when it is loaded. Here the weights are finite, but a product is too large
for the number format. All results pass through a linear layer outside the blocks, also those of generation and ranking.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from madtp_cli.errors import CheckpointError
from madtp_cli.evaluation.compute import ComputeConfig


@contextlib.contextmanager
def required(model: nn.Module, compute: ComputeConfig) -> Iterator[None]:
    """Raise CheckpointError within the block as soon as a model computes a result that is NaN or infinite."""

    def check(name: str) -> Callable[..., None]:
        def of_layer(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            require(model, {name: output}, compute)

        return of_layer

    hooks = [layer.register_forward_hook(check(name)) for name, layer in _outside_blocks(model)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def require(model: nn.Module, values: Mapping[str, Any], compute: ComputeConfig) -> None:
    """Raise CheckpointError if one of the named values is a tensor with NaN or infinity.

    The message names the number format and the largest weight.
    """
    for name, value in values.items():
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"The model's {name} is NaN or infinite in {_format(compute)}.\n{_advice(model, compute)}"
            )


def require_loss(model: nn.Module, losses: Mapping[str, float], step: int, compute: ComputeConfig) -> None:
    """Raise CheckpointError if a loss of a training step is NaN or infinite."""
    for name, value in losses.items():
        if not math.isfinite(value):
            raise CheckpointError(
                f"The {name} loss is NaN or infinite in {_format(compute)} after {step} steps.\n"
                f"If earlier losses rose, use a lower --learning-rate. {_advice(model, compute)}"
            )


def _format(compute: ComputeConfig) -> str:
    return str(compute.dtype).removeprefix("torch.")


def _advice(model: nn.Module, compute: ComputeConfig) -> str:
    """Return what to do, and the weight with the largest value: an overflow most often begins there."""
    peaks = {name: float(value.detach().abs().max()) for name, value in model.named_parameters() if value.numel()}
    largest = max(peaks, key=lambda name: peaks[name])
    where = f"The largest weight is {peaks[largest]:.3g}, in {largest}."
    if compute.dtype == torch.float32:
        return f"The checkpoint cannot be computed in this number format. {where}"
    return f"Numbers of the model overflow in this format: use --dtype float32. {where}"


def _outside_blocks(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Linear]]:
    """Yield the linear layers that are in no list of blocks."""
    for name, part in module.named_children():
        if isinstance(part, nn.Linear):
            yield prefix + name, part
        elif not isinstance(part, nn.ModuleList):
            yield from _outside_blocks(part, f"{prefix}{name}.")
