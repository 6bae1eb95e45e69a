"""The number format in which weights are saved: by default that of the source, so that the file stays as small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from madtp_cli.errors import UsageError

#: Formats in which weights can be saved, by the name of the setting.
FORMATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a number format, as "float16"."""
    return str(dtype).removeprefix("torch.")


def main_format(weights: Iterable[Tensor]) -> torch.dtype:
    """Return the format that most numbers of a file have; float32 if that is none of `FORMATS`."""
    numbers = Counter[torch.dtype]()
    for weight in weights:
        if weight.is_floating_point():
            numbers[weight.dtype] += weight.numel()
    most = max(numbers, key=lambda dtype: numbers[dtype], default=torch.float32)
    return most if most in FORMATS.values() else torch.float32


def require_range(model: nn.Module, dtype: torch.dtype) -> None:
    """Raise UsageError if a weight of a model is too large for a number format."""
    largest = torch.finfo(dtype).max
    for name, value in model.state_dict().items():
        if value.is_floating_point() and (peak := float(value.abs().max()) if value.numel() else 0.0) > largest:
            raise UsageError(
                f"{name} has the value {peak:.3g}, but the largest number in {name_of(dtype)} is {largest:.3g}.\n"
                "Give --save-dtype float32."
            )


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype) -> bool:
    """Round the weights of a model to a number format, in place. They keep their own format.

    Returns:
        Whether a weight changed.

    Raises:
        UsageError: A weight is too large for the format.
    """
    require_range(model, dtype)
    changed = False
    for value in model.state_dict().values():
        if value.is_floating_point():
            rounded = value.to(dtype).to(value.dtype)
            changed = changed or not torch.equal(rounded, value)
            value.copy_(rounded)
    return changed


def weights_in(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the state dict of a model in a number format. Names that share a tensor share it in the result too."""
    made: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    return {
        name: made.setdefault((value.data_ptr(), tuple(value.shape)), value.to(dtype))
        if value.is_floating_point()
        else value
        for name, value in model.state_dict().items()
    }


def weight_bytes(model: nn.Module, dtype: torch.dtype) -> int:
    """Return the size of all parameters of a model in a number format, in bytes; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
