"""Random weights for the small models of the tests, and copies of these models with pruning."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import nn

from madtp_cli import methods
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


def attached(model: Model, threshold_scale: float, *, method: str = "madtp", **settings: Any) -> Model:
    """Return a copy that prunes in all blocks of all towers, and before the first block where the method can.

    Args:
        model: Dense model.
        threshold_scale: How strongly to prune.
        method: Pruning method.
        settings: Fields of `PruningSettings`, or parameters of the method.
    """
    student = copy.deepcopy(model)
    names = {field.name for field in fields(methods.get(method).PARAMETERS)}
    given = {"proportional": True, "queries": 0, "temperature": 1.0} | settings
    parameters = {name: value for name, value in given.items() if name in names}
    others = {name: value for name, value in settings.items() if name not in names}
    before = 0.5 if methods.get(method).PRESET.embedding else 0.0
    sizes = {"dictionary_size": 7, "dictionary_width": 24, "embedding_scale": before} | others
    student.attach(PruningSettings(method, threshold_scale, parameters=parameters, **sizes))
    if student.madtp is not None:
        draw(student.madtp, seed=2)
    return student.eval()
