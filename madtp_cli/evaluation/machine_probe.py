"""What the installed torch can do on this machine. `madtp doctor` runs this in a process of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from madtp_cli.evaluation import number_formats
from madtp_cli.execution import attention
from madtp_cli.reporting.doctor import DevicePart, TorchPart

#: Tokens and head width of the attention that is tried.
TOKENS, HEAD_WIDTH = 16, 64


def probe() -> TorchPart:
    """Try each device. The time is left for the caller, who also measures the import of torch."""
    names = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    return TorchPart(
        version=torch.__version__,
        cuda=torch.version.cuda,
        threads=torch.get_num_threads(),
        devices=[_device(name) for name in names],
        seconds=0.0,
    )


def _device(name: str) -> DevicePart:
    cuda = name.startswith("cuda")
    tried: dict[str, Callable[[str], object]] = {"padded": _padded, "varlen (flash)": _varlen}
    return DevicePart(
        name=name,
        description=torch.cuda.get_device_name(name) if cuda else number_formats.cpu(),
        memory_bytes=torch.cuda.get_device_properties(name).total_memory if cuda else None,
        fast_formats=number_formats.fast_formats(name),
        attention={way: _works(function, name) for way, function in tried.items()},
    )


def _works(function: Callable[[str], object], device: str) -> str:
    try:
        function(device)
    except Exception as error:  # noqa: BLE001  the reason is the result
        return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return "works"


def _padded(device: str) -> None:
    query = torch.ones(1, 2, TOKENS, HEAD_WIDTH, device=device)
    functional.scaled_dot_product_attention(query, query, query).sum().item()


def _varlen(device: str) -> None:
    """Run the flash kernel over packed rows in half precision, as the execution does on CUDA."""
    if not device.startswith("cuda"):
        raise RuntimeError("needs CUDA; the padded way is used")
    if not attention.HAS_VARLEN:
        raise RuntimeError("needs torch 2.11 or newer; the padded way is used")
    from torch.nn.attention.varlen import varlen_attn

    rows = torch.ones(TOKENS, 2, HEAD_WIDTH, device=device, dtype=torch.float16)
    starts = torch.tensor([0, TOKENS // 2, TOKENS], device=device, dtype=torch.int32)
    varlen_attn(rows, rows, rows, starts, starts, TOKENS // 2, TOKENS // 2)
    torch.cuda.synchronize(device)  # an error in a kernel shows up later than its call
