"""The student and the teacher of a compression: a copy that can prune, and the frozen dense model."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import nn

from madtp_cli import methods, models
from madtp_cli.errors import UsageError
from madtp_cli.execution.block_pruner import PruningSettings
from madtp_cli.models.prunable import Prunable


def dense_teacher(model: Prunable) -> Prunable:
    """Return the frozen dense model, without the dictionary if the model has one.

    The weights are shared with the model, not copied.
    """
    shared: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    teacher = copy.deepcopy(model, shared).eval()
    teacher.config.madtp, teacher.madtp = None, None
    return teacher


def prunable_student(model: Prunable, method: str) -> Prunable:
    """Return a copy of the model that prunes by a method; a dictionary that the model already has stays.

    Raises:
        UsageError: The method makes images smaller, and the model reads images of different sizes.
    """
    if methods.IMAGE in methods.get(method).NEEDS and models.family_of(model.config).image_lengths is not None:
        raise UsageError(
            f"--method {method} makes square images smaller, but this model keeps the proportions of an image.\n"
            "Choose a method that prunes tokens, such as --method madtp."
        )
    student, current = copy.deepcopy(model), model.pruning
    if current is not None and current.method == method:
        return student
    causal = [tower for tower, read_out in student.READ_OUT.items() if read_out == "last"]
    settings = PruningSettings.preset(method, student.widths, student.blocks, causal)
    if current is not None:
        settings = replace(
            settings,
            dictionary_size=current.dictionary_size,
            dictionary_width=current.dictionary_width,
            block_projections=current.block_projections,
        )
    student.attach(settings)
    return student
