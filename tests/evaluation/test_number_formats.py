"""Which number formats are fast: by the features of a CPU, and by a probe where these do not tell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from madtp_cli.evaluation import number_formats

BF16, FP16 = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("dtype", "machine", "supported", "features", "variables", "expected"),
    [
        (BF16, "x86_64", True, {"avx512_bf16": True}, {}, True),
        (BF16, "AMD64", True, {"avx512_bf16": False, "amx_bf16": True}, {}, True),
        (BF16, "x86_64", True, {"avx512_f": True, "avx512_bf16": False}, {}, False),  # oneDNN emulates it here
        (BF16, "x86_64", False, {"avx512_bf16": True}, {}, False),  # oneDNN is limited to AVX2
        (BF16, "x86_64", True, {"avx512_bf16": True}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, None),
        (FP16, "x86_64", True, {"avx512_bf16": True}, {}, False),
        (FP16, "x86_64", True, {"amx_fp16": True}, {}, True),
        (BF16, "aarch64", True, {"bf16": True}, {}, None),
        (BF16, "aarch64", False, {}, {}, False),
        (BF16, "x86_64", True, {}, {}, None),  # torch has no list of features
    ],
)
def test_features_decide_where_they_tell(dtype, machine, supported, features, variables, expected) -> None:
    """None stands for a probe."""
    assert number_formats.decide(dtype, machine, supported, features, variables) is expected


def clock_of(float32: float, other: float) -> Iterator[float]:
    """Yield the times before and after each product: three in float32, then three in the other format."""
    now = 0.0
    for seconds in [float32] * number_formats.PROBE_REPEATS + [other] * number_formats.PROBE_REPEATS:
        yield now
        now += seconds
        yield now


@pytest.mark.parametrize(("other", "fast"), [(0.5, True), (1.0, True), (1.1, False), (8.0, False)])
def test_the_probe_compares_the_products(other, fast) -> None:
    """A format is fast if its product takes no longer than that of float32."""
    times = clock_of(1.0, other)
    assert number_formats._is_fast_in_probe(BF16, lambda: next(times)) is fast


def test_float32_is_always_fast_and_needs_no_warning() -> None:
    """It is the format of every model by default."""
    assert number_formats.is_fast(torch.float32)
    assert number_formats.warning(torch.float32) is None
    assert number_formats.fast_formats()[0] == "float32"


def test_an_emulated_format_gets_a_warning(monkeypatch) -> None:
    """It names the format, the processor and what to do."""
    monkeypatch.setattr(number_formats, "_is_fast_on_cpu", lambda dtype: False)
    sentence = number_formats.warning(BF16)
    assert sentence is not None
    assert sentence.startswith("bfloat16 is emulated on this ")
    assert "--dtype float32" in sentence
    assert number_formats.fast_formats() == ["float32"]


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="only x86 CPUs can be limited to AVX2"
)
def test_a_cpu_that_is_limited_to_avx2_has_only_float32() -> None:
    """The variables of torch and oneDNN limit their instructions; the features of the CPU are those of the machine."""
    code = "from madtp_cli.evaluation import number_formats as n; print(n.cpu(), *n.fast_formats())"
    limits = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | limits, capture_output=True, text=True)
    assert done.stdout.split()[1:] == ["AVX2", "float32"], done.stderr
