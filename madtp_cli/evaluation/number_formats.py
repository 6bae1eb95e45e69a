"""Which number formats a device multiplies fast, and which it only emulates.

A CPU without AVX512-BF16 or AMX computes bfloat16 products in small parts, up to eight times slower than float32
ones. The features of the device decide, so that each run on a machine chooses the same. Only where the features do not
tell, two small products are timed, once per process.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Mapping

import torch

#: The 16-bit formats, and the CPU features of x86 that multiply each of them fast.
FEATURES = {torch.bfloat16: ("avx512_bf16", "amx_bf16"), torch.float16: ("avx512_fp16", "amx_fp16")}
#: The functions of torch that tell whether oneDNN supports a format here.
_SUPPORT = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
#: Variables that limit the instructions of oneDNN; the features of the CPU are then no longer those that it uses.
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
#: Rows and columns of the probe's matrices, and how often each product is timed. The probe takes about a millisecond.
PROBE_SIZE, PROBE_REPEATS = 128, 3


def is_fast(dtype: torch.dtype, device: torch.device | str = "cpu") -> bool:
    """Return whether matrix products in a number format are at least as fast as in float32."""
    kind = torch.device(device).type
    if dtype not in FEATURES:
        return True
    if kind == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and _is_fast_on_cpu(dtype)


def fast_formats(device: torch.device | str = "cpu") -> list[str]:
    """Return the names of the fast number formats of a device; float32 is always one.

    >>> fast_formats()[0]
    'float32'
    """
    return [_name(dtype) for dtype in (torch.float32, *FEATURES) if is_fast(dtype, device)]


def warning(dtype: torch.dtype, device: torch.device | str = "cpu") -> str | None:
    """Return a sentence for the user if a number format is emulated on a device, else None."""
    if is_fast(dtype, device):
        return None
    return f"{_name(dtype)} is emulated on this {cpu()} processor and slower than float32; --dtype float32 is faster."


def cpu() -> str:
    """Return the architecture of the CPU and the instruction set that torch uses: "x86_64 AVX2"."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


@functools.cache
def _is_fast_on_cpu(dtype: torch.dtype) -> bool:
    known = decide(dtype, platform.machine(), _supported(dtype), _capabilities(), os.environ)
    return _is_fast_in_probe(dtype) if known is None else known


def decide(
    dtype: torch.dtype, machine: str, supported: bool, features: Mapping[str, object], variables: Mapping[str, str]
) -> bool | None:
    """Return whether a CPU multiplies a format fast, or None if its features do not tell.

    Args:
        dtype: bfloat16 or float16.
        machine: The architecture, such as x86_64.
        supported: Whether oneDNN computes in the format here. It does so with AVX512 alone, but slowly.
        features: The features of the CPU by name.
        variables: The environment variables.
    """
    if not supported:
        return False
    x86 = machine.lower() in ("x86_64", "amd64")
    if not x86 or not features or any(name in variables for name in LIMITS):
        return None
    return any(bool(features.get(name)) for name in FEATURES[dtype])


def _supported(dtype: torch.dtype) -> bool:
    function = getattr(torch.ops.mkldnn, _SUPPORT[dtype], None)
    return torch.backends.mkldnn.is_available() and (function is None or bool(function()))


def _capabilities() -> Mapping[str, object]:
    read = getattr(torch.cpu, "get_capabilities", None)
    return read() if read else {}


def _is_fast_in_probe(dtype: torch.dtype, clock: Callable[[], float] = time.perf_counter) -> bool:
    """Time a product in float32 and in a format, both after a warm-up; the shortest time of each counts."""
    seconds = {}
    for tried in (torch.float32, dtype):
        matrix = torch.ones(PROBE_SIZE, PROBE_SIZE, dtype=tried)
        torch.mm(matrix, matrix)
        times = []
        for _ in range(PROBE_REPEATS):
            started = clock()
            torch.mm(matrix, matrix)
            times.append(clock() - started)
        seconds[tried] = min(times)
    return seconds[dtype] <= seconds[torch.float32]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
