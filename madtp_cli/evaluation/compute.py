"""The compute config: the device and the number format in which models run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from madtp_cli.errors import UsageError

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class ComputeConfig:
    """The device and the number format (dtype) to compute in."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str, dtype: str) -> ComputeConfig:
        """Return the compute config of the settings; "auto" means CUDA if available, and float32.

        Raises:
            UsageError: This machine does not have the device.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"--device {device} cannot be used here: {reason}\nUse --device cpu.") from error
        return cls(torch.device(device), torch.float32 if dtype == "auto" else getattr(torch, dtype))

    def moved(self, batch: Batch) -> Batch:
        """Return the batch on the device."""
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """Return an autocast context in the number format; the weights keep theirs.

        Training needs a new context for each step, because autocast caches the weights it has cast until it ends.
        """
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @contextlib.contextmanager
    def inference(self, *models: nn.Module) -> Iterator[None]:
        """Run forward passes without gradients in the number format.

        The weights of linear layers are cast once for all forward passes. Autocast would cast them in each forward
        pass, and that time does not fall with the number of tokens. The values are those that autocast computes.
        Convolutions keep their format, because transformers reads the format of its inputs from their weights.
        """
        layers = [layer for model in models for layer in model.modules() if isinstance(layer, nn.Linear)]
        originals = {weight: weight.data for layer in layers for weight in layer.parameters(recurse=False)}
        originals = {weight: data for weight, data in originals.items() if data.dtype == torch.float32 != self.dtype}
        try:
            for weight, data in originals.items():
                weight.data = data.to(self.dtype)
            with torch.inference_mode(), self.precision():
                yield
        finally:
            for weight, data in originals.items():
                weight.data = data


def inputs_of(batch: Batch) -> Batch:
    """Return the part of a batch that a forward pass takes, without labels.

    A name with a dot is an input of the task, not of the model.
    """
    return {name: value for name, value in batch.items() if name != "labels" and "." not in name}
