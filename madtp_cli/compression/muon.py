"""Muon with products in float32, for devices that emulate bfloat16.

`torch.optim.Muon` orthogonalises in bfloat16, whatever the device. On a CPU without AVX512-BF16 or AMX this takes
most of a step. The update here is the same but for rounding, so results differ between machines by rounding only.
Within a run there is one number format: all processes have the same, or their weights would drift apart, and a run
that is resumed keeps that of its saved state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from madtp_cli import processes
from madtp_cli.evaluation import number_formats

#: Size of an update relative to one of AdamW, see `adjust_lr_fn="match_rms_adamw"` of torch.
ADAMW_SIZE = 0.2


def muon(matrices: Sequence[nn.Parameter], **settings: Any) -> Muon:
    """Return Muon in a number format that the devices of all processes multiply fast.

    Args:
        matrices: The parameters, all on one device.
        settings: Keyword arguments of `torch.optim.Muon`; the size of the updates is that of AdamW.
    """
    device = matrices[0].device if matrices else torch.device("cpu")
    fast = all(processes.gathered([number_formats.is_fast(torch.bfloat16, device)]))
    return Muon(matrices, float32=not fast, **settings)


class Muon(torch.optim.Muon):
    """`torch.optim.Muon`, or the same with an orthogonalisation in the number format of the gradients.

    The choice is in the parameter groups, so it is part of the state dict.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], *, float32: bool, **settings: Any) -> None:
        """Take the matrices, the choice, and keyword arguments of `torch.optim.Muon`."""
        super().__init__(matrices, adjust_lr_fn="match_rms_adamw", **settings)
        for group in self.param_groups:
            group["float32"] = float32

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; `closure` computes the loss again, as in every optimizer of torch."""
        if not all(group["float32"] for group in self.param_groups):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)
        return loss

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(update, alpha=-group["lr"] * ADAMW_SIZE * math.sqrt(max(matrix.shape)))


def orthogonalised(matrix: Tensor, coefficients: Sequence[float], iterations: int, eps: float) -> Tensor:
    """Return a matrix with about the same singular vectors and all singular values near 1 (0.5 to 1.5).

    This is the Newton-Schulz iteration of Muon (Jordan et al. 2024) and of torch, in the number format of the matrix.
    """
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
