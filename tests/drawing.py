"""Random weights for the small models of the tests, and copies of these models with pruning."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.prunable import Prunable

Model = TypeVar("Model", bound=Prunable)


def draw(model: nn.Module, seed: int) -> None:
    """Draw weights that make attention uneven and the outputs of different samples different.

    With the default weights of transformers, attention is nearly uniform, and many errors would not show.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1 and "embedding" not in name and "dictionary" not in name:
                noise = noise * 1.5 / parameter[0].numel() ** 0.5
            is_norm_weight = parameter.dim() == 1 and "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if is_norm_weight else 0.1 * noise if parameter.dim() == 1 else noise)


def attached(model: Model, threshold_scale: float, **settings: Any) -> Model:
    """Return a copy of a dense model with a dictionary that prunes all towers with `--method madtp`.

    Args:
        model: The dense model.
        threshold_scale: Larger values prune more tokens; 0 prunes none.
        settings: Fields of `PruningSettings` that differ from the defaults of the tests.
    """
    student = copy.deepcopy(model)
    defaults = {"proportional": True, "dictionary_size": 7, "dictionary_width": 24}
    student.attach(PruningSettings(threshold_scale=threshold_scale, **defaults | settings))
    assert student.madtp is not None
    draw(student.madtp, seed=2)
    return student.eval()
