"""Small models with random weights that matter, for the tests of every model."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn

from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.prunable import Prunable

Model = TypeVar("Model", bound=Prunable)


def draw(model: nn.Module, seed: int) -> None:
    """Weights that make attention peaked and samples unlike; a fresh BLIP's attention is nearly even."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.dim() > 1 and "embedding" not in name and "dictionary" not in name:
                noise = noise * 1.5 / value[0].numel() ** 0.5
            is_scale = value.dim() == 1 and "norm" in name.lower() and name.endswith("weight")
            value.copy_(1 + 0.2 * noise if is_scale else 0.1 * noise if value.dim() == 1 else noise)


def attached(model: Model, threshold_scale: float, **settings: Any) -> Model:
    """A copy with a dictionary, pruned as `madtp` does, in all towers."""
    student = copy.deepcopy(model)
    preset = {"proportional": True, "dictionary_size": 7, "dictionary_width": 24} | settings
    student.attach(PruningSettings(threshold_scale=threshold_scale, **preset))
    assert student.madtp is not None
    draw(student.madtp, seed=2)
    return student.eval()
