"""Reports with figures that a test chooses."""

from __future__ import annotations

from typing import Any

from madtp_cli.reporting.schema import (
    AgreementPart,
    BudgetPart,
    ChangePart,
    CompressReport,
    ComputePart,
    Environment,
    GflopsPart,
    Interval,
    LatencyPart,
    TimesPart,
    WeightsPart,
)

ENVIRONMENT = Environment(
    madtp="0.1.0",
    torch="2.13.0",
    transformers="5.23.0",
    python="3.12",
    machine="x86_64",
    processor="x86_64 AVX2",
    fast_formats=["float32"],
)
TIMES = TimesPart(
    median_ms=80.0, p5_ms=79.0, p95_ms=81.0, samples_per_second=100.0, peak_memory_mb=9.0, gflops=1.0, executed_gflops=1
)


def change(value: float = -1.0, low: float = -1.5, high: float = -0.5, **updates: Any) -> ChangePart:
    """Return a quality of 98 percent of the dense model and its change by pruning."""
    part = ChangePart(
        metric="accuracy",
        split="test",
        samples=2000,
        groups=2000,
        dense=98.0,
        pruned=98.0 + value,
        change=value,
        interval95=Interval(low=low, high=high),
        pruned_interval95=Interval(low=98.0 + value - 0.7, high=98.0 + value + 0.6),
    )
    return part.model_copy(update=updates)


def latency(speedup: float = 2.0, low: float = 1.8, high: float = 2.2) -> LatencyPart:
    """Return times at batch size 8 with 10 ms per sample of the dense model."""
    return LatencyPart(
        batch_size=8,
        dense_ms=10.0,
        pruned_ms=10.0 / speedup,
        speedup=speedup,
        interval95=Interval(low=10.0 / high, high=10.0 / low),
        speedup_interval95=Interval(low=low, high=high),
        peak_memory_mb=9.0,
        repeats=8,
        device="cpu",
        dtype="float32",
        threads=2,
        processor="x86_64 AVX2",
        dense=TIMES,
        pruned=TIMES,
    )


def compress_report(**updates: Any) -> CompressReport:
    """Return a report of `madtp compress`: 0.2 of 1 GFLOPs, one point lost, twice as fast, 97 % the same answers."""
    report = CompressReport(
        command="compress",
        checkpoint="blip.pt",
        output="blip-madtp",
        task="nlvr2",
        data="/here/nlvr2",
        method="madtp",
        budget=BudgetPart(requested="0.2", share=0.2, gflops=0.2, achieved_val=0.2, achieved_share=0.2, samples=500),
        gflops=GflopsPart.of(1.0, 0.2),
        quality=change(),
        agreement=AgreementPart(percent=97.0, answers=2000, interval95=Interval(low=96.0, high=98.0)),
        latency=latency(),
        tokens={},
        weights=WeightsPart(dtype="float32", source_dtype="float32", bytes=1000),
        threshold_scale=0.1,
        curve=[],
        settings={},
        environment=ENVIRONMENT,
        compute=ComputePart(device="cpu", dtype="float32"),
        seconds=1.0,
    )
    return report.model_copy(update=updates)
