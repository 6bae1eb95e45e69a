"""The state of an interrupted training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn


def save(file: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], steps: int, seconds: float) -> None:
    """Write the state after some steps; a file that exists is replaced when the new one is complete."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random": torch.get_rng_state(),
        "steps": steps,
        "seconds": seconds,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    torch.save(state, new)
    new.replace(file)


def restore(file: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> tuple[int, float]:
    """Read the state, if there is one, and return the number of steps and the CPU time in seconds so far."""
    if not file.exists():
        return 0, 0.0
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, of_optimizer in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(of_optimizer)
    torch.set_rng_state(state["random"])
    return int(state["steps"]), float(state["seconds"])
