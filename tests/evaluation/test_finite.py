"""A model that computes NaN or infinity is an error with a reason; it is not scored, and not pruned at random."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from madtp_cli.errors import CheckpointError
from madtp_cli.evaluation import finite, run
from madtp_cli.evaluation.compute import ComputeConfig

FLOAT32, FLOAT16 = ComputeConfig.of("cpu", "float32"), ComputeConfig.of("cpu", "float16")


def overflowing(model: Any, weight: str, size: float = 3e38) -> Any:
    """Return a copy of a model in which one weight has its largest values."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.get_parameter(weight).fill_(size)
    return changed


def test_a_calibration_stops(attached: Callable[..., Any], samples: list[dict[str, Tensor]]) -> None:
    """The threshold scale of a model that computes NaN means nothing."""
    model = overflowing(attached(0.3), "vision_model.encoder.layers.0.mlp.fc1.weight")
    with pytest.raises(CheckpointError, match=r"NaN or infinite in float32.*\n.*fc1\.weight"):
        run.mean_gflops(model, samples[:1], FLOAT32)


def test_a_format_that_overflows_is_named(blip: Any, samples: list[dict[str, Tensor]]) -> None:
    """The same weights are right in float32."""
    model = overflowing(blip, "cls_head.2.bias", 65_504.0)
    finite.require(model, {"logits": model(**run.inputs_of(samples[0])).logits}, FLOAT32)
    with torch.no_grad():
        logits = model(**run.inputs_of(samples[0])).logits.to(torch.float16) * 2
    with pytest.raises(CheckpointError, match=r"logits is NaN or infinite in float16[^\n]*\n.*--dtype float32"):
        finite.require(model, {"logits": logits}, FLOAT16)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_layer_that_generation_uses_alone_is_watched(value: float) -> None:
    """Generation and ranking call the decoder's last layer again, after the forward pass was right."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.Linear(2, 2)])
            self.head = nn.Sequential(nn.Linear(2, 2))

    model, wrong = Model(), torch.tensor([[1.0, value]])
    with finite.required(model, FLOAT32):
        model.head(torch.ones(1, 2))
        model.blocks[0](wrong)  # checking every block would take time, and its values reach the head
        with pytest.raises(CheckpointError, match=r"head\.0 is NaN or infinite"):
            model.head(wrong)
    model.head(wrong)


def test_a_training_step_without_a_loss_stops(blip: Any) -> None:
    """Its gradients would make all weights NaN."""
    finite.require_loss(blip, {"logits": 1.0}, 3, FLOAT32)
    with pytest.raises(CheckpointError, match=r"task loss is NaN or infinite in float32 after 3 steps"):
        finite.require_loss(blip, {"logits": 1.0, "task": float("nan")}, 3, FLOAT32)
