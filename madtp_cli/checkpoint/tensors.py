"""Check the tensors of a checkpoint before they are used: number format, values, and tensors without a place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from madtp_cli.errors import CheckpointError

#: Number formats that weights can have.
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

#: Keys of a tensor that changes what a model computes, wherever it stands.
CHANGES_THE_MODEL = re.compile(r"lora|adapter|embed|proj|logit|norm|ln_|prompt|gamma|\.ls_?\d|scale", re.IGNORECASE)
LORA = re.compile(r"lora_(A|B|down|up|embedding)", re.IGNORECASE)


def require_numbers(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless all weights are floating-point numbers."""
    for key, value in weights.items():
        if value.dtype not in FLOATS:
            name = str(value.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{path}: the weight {key[:100]} has the number format {name}.\n"
                "Give a model in float32, float16 or bfloat16."
            )


def require_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError if a weight is NaN or infinite; the message names the first such tensor."""
    for key, value in weights.items():
        if not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise CheckpointError(
                f"{path}: the tensor {key[:100]} has {count:,} values that are NaN or infinite.\n"
                "Its training failed, or the file is damaged: give a checkpoint from before."
            )


def extra_refusal(unexpected: Sequence[str], weights: Mapping[str, Tensor]) -> str | None:
    """Return why tensors that the model has no place for make the checkpoint another model; None if they do not.

    Args:
        unexpected: Keys that the model does not have.
        weights: All tensors of the checkpoint.
    """
    parts = {key.split(".")[0] for key in weights.keys() - set(unexpected)}
    inside = [key for key in unexpected if key.split(".")[0] in parts or CHANGES_THE_MODEL.search(key)]
    if not inside:
        return None
    found = f"it has {len(inside)} tensors that the model has no place for, such as {inside[0][:100]}"
    if any(LORA.search(key) for key in inside):
        return f"{found}: LoRA matrices that are not merged.\nMerge them into the weights first."
    return f"{found}.\nWithout them the result is not the model that was given: give a model without such parts."
