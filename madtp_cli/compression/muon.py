"""Muon with products in float32, for devices that emulate bfloat16.

`torch.optim.Muon` orthogonalises in bfloat16, whatever the device. On a CPU without AVX512-BF16 or AMX this takes
most of a step. The update here is the same but for rounding, so results differ between machines by rounding only.
Within a run there is one number format: all processes have the same, or their weights would drift apart, and a run
that is resumed keeps that of its saved state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from madtp_cli import processes
from madtp_cli.evaluation import number_formats

#: Size of an update relative to one of AdamW, see `adjust_lr_fn="match_rms_adamw"` of torch.
ADAMW_SIZE = 0.2
#: Numbers of the matrices that are computed at the same time, which need some copies of them in memory.
TOGETHER = 2**22


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
            used = [matrix for matrix in group["params"] if matrix.grad is not None]
            for matrices in same_shapes(used):
                self._update(matrices, group)
        return loss

    def _update(self, matrices: Sequence[Tensor], group: dict[str, Any]) -> None:
        """Do the step of matrices of one shape."""
        rows, columns = matrices[0].shape
        updates = torch.stack([self._with_momentum(matrix, group) for matrix in matrices])
        updates = updates.mT if rows > columns else updates
        updates = orthogonalised(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        updates = updates.mT if rows > columns else updates
        for matrix, update in zip(matrices, updates, strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            matrix.add_(update, alpha=-group["lr"] * ADAMW_SIZE * math.sqrt(max(matrix.shape)))

    def _with_momentum(self, matrix: Tensor, group: dict[str, Any]) -> Tensor:
        state, gradient = self.state[matrix], cast(Tensor, matrix.grad)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else cast(Tensor, momentum)


def same_shapes(matrices: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield matrices of one shape together, as many as are computed at the same time.

    Small matrices do not keep several CPU cores busy one by one.
    """
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(matrix.shape, []).append(matrix)
    for shape, same in by_shape.items():
        many = max(1, TOGETHER // shape.numel())
        yield from (same[first : first + many] for first in range(0, len(same), many))


def orthogonalised(matrices: Tensor, coefficients: Sequence[float], iterations: int, eps: float) -> Tensor:
    """Return matrices with about the same singular vectors and all singular values near 1 (0.5 to 1.5).

    This is the Newton-Schulz iteration of Muon (Jordan et al. 2024) and of torch, in the number format of the matrices.

    Args:
        matrices: [rows, columns] or [matrices, rows, columns]; fewer rows than columns take less time.
        coefficients: Of the polynomial of degree 5.
        iterations: Number of iterations.
        eps: Smallest norm to divide by.
    """
    a, b, c = coefficients
    given, matrices = matrices, matrices[None] if matrices.dim() == 2 else matrices
    matrices = matrices / matrices.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(iterations):
        gram = matrices @ matrices.mT
        matrices = torch.baddbmm(matrices, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), matrices, beta=a)
    return matrices.reshape(given.shape)
