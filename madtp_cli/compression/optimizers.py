"""The optimizers of the fine-tune and their learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from madtp_cli.compression.muon import muon

#: Share of the steps over which the learning rates rise.
WARM_UP = 0.1
#: Learning rate of pretrained embeddings, norms, biases and heads, as a share of the matrices' rate.
REST_RATE = 1 / 3
WEIGHT_DECAY = 0.05
#: Newton-Schulz iterations in each step of Muon.
MUON_ITERATIONS = 5
#: Default peak rate times model width. A unit with more inputs takes smaller steps, so that its output changes as much.
RATE_TIMES_WIDTH = 0.007
#: A student whose loss before the training is above this has a larger rate, at most this many times as large.
LOSS_OF_BASE_RATE, LARGEST_FACTOR = 0.05, 3.0


def default_rate(width: int, loss: float) -> float:
    """Return the default peak learning rate of the pretrained matrices.

    Args:
        width: Width of the model's tokens.
        loss: Loss of the outputs before the training, see `output_loss`. What is far from the dense model has more to
            learn: the rate grows with the square root.
    """
    factor = math.sqrt(max(loss, 0.0) / LOSS_OF_BASE_RATE)  # rounding makes a loss of nothing negative
    return RATE_TIMES_WIDTH / width * min(max(factor, 1.0), LARGEST_FACTOR)


@dataclass(frozen=True)
class Schedule:
    """The length and the peak learning rates of a fine-tune.

    Attributes:
        steps: Number of steps.
        learning_rate: Peak rate of the pretrained matrices.
        dictionary_learning_rate: Peak rate of the dictionary and its projections, which start untrained.
    """

    steps: int
    learning_rate: float
    dictionary_learning_rate: float

    def factor(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0, as a share of its peak: linear warm-up, then cosine.

        The first step has a rate above 0. transformers' `get_cosine_schedule_with_warmup` starts at 0, which wastes
        a step of a fine-tune that may have ten.
        """
        warm = max(1, round(WARM_UP * self.steps))
        if step < warm:
            return (step + 1) / warm
        return (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2

    def schedulers(self, optimizers: Sequence[torch.optim.Optimizer]) -> list[torch.optim.lr_scheduler.LambdaLR]:
        """Return a scheduler for each optimizer; its `step` is called after each step of the optimizer."""
        return [torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor) for optimizer in optimizers]


def tower_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the weight matrices of the towers' layers, which Muon is made for."""
    return [value for name, value in model.named_parameters() if value.dim() == 2 and ".layer" in name]


def optimizers_of(student: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the towers' layers and AdamW for all other parameters.

    Muon (Jordan et al. 2024) makes steps of the same size in all directions of a matrix; here the size is that of
    AdamW. On the example checkpoint at a fifth of the FLOPs it learns more in the same number of steps.
    """
    matrices = tower_matrices(student)
    with_muon = {id(matrix) for matrix in matrices}
    others = [(name, value) for name, value in student.named_parameters() if id(value) not in with_muon]
    dictionary = [value for name, value in others if name.startswith("madtp.")]
    rest = [value for name, value in others if not name.startswith("madtp.")]
    groups = [
        *_parameter_groups(rest, schedule.learning_rate * REST_RATE),
        *_parameter_groups(dictionary, schedule.dictionary_learning_rate),
    ]
    return [
        muon(matrices, lr=schedule.learning_rate, weight_decay=WEIGHT_DECAY, ns_steps=MUON_ITERATIONS),
        torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY),
    ]


def _parameter_groups(parameters: Sequence[nn.Parameter], rate: float) -> list[dict[str, Any]]:
    """Return a parameter group with weight decay and one without, which has the vectors (norms, biases)."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "lr": rate},
        {"params": [p for p in parameters if p.dim() <= 1], "lr": rate, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
