"""Optimizers and learning rates of the training scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import distributed, nn

from madtp_cli.compression.muon import muon
from madtp_cli.compression.optimizers import tower_matrices

#: Learning rate of Muon, as a multiple of the learning rate of AdamW.
MUON_RATE = 3
GRADIENT_NORM = 1.0


def build_optimizers(model: nn.Module, heads: Iterable[nn.Parameter] = ()) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the towers' layers and AdamW for all other parameters.

    Args:
        model: The model to train.
        heads: Parameters outside the model that are trained too, with AdamW.
    """
    matrices = tower_matrices(model)
    with_muon = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in [*model.parameters(), *heads] if id(parameter) not in with_muon]
    return [
        muon(matrices, weight_decay=0.02),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def cosine_decay(progress: float) -> float:
    """Return a factor that falls from 1 to 0.01 while `progress` rises from 0 to 1.

    >>> [round(cosine_decay(progress), 3) for progress in (0, 0.5, 1)]
    [1.0, 0.505, 0.01]
    """
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def start_step(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Clear the gradients and set the learning rate; `optimizers` are from `build_optimizers`."""
    for optimizer, factor in zip(optimizers, (MUON_RATE, 1), strict=True):
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = factor * rate


def finish_step(optimizers: Sequence[torch.optim.Optimizer], parameters: Iterable[nn.Parameter]) -> None:
    """Clip the gradients and update the parameters."""
    nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
    for optimizer in optimizers:
        optimizer.step()


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its mean over all processes, each of which has trained on its own images."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
