"""The rows and sentences about times."""

from __future__ import annotations

from typing import Any

import pytest

from madtp_cli.cli.results import times
from madtp_cli.reporting.schema import LatencyPart, TimesPart


def model(**fields: Any) -> TimesPart:
    """Return the times of one model: by default eight samples in 100 milliseconds, without padding."""
    usual = dict(median_ms=100.0, p5_ms=90.0, p95_ms=2000.0, samples_per_second=80.0, peak_memory_mb=50.0)
    return TimesPart(**{**usual, "gflops": 2.0, "executed_gflops": 2.0, **fields})


def latency(**fields: Any) -> LatencyPart:
    """Return the times of a batch of eight."""
    machine = dict(repeats=8, device="cpu", dtype="float32", threads=2, processor="x86_64 AVX2")
    usual = dict(batch_size=8, dense_ms=12.5, peak_memory_mb=50.0, dense=model())
    return LatencyPart(**{**machine, **usual, **fields})


PRUNED = model(median_ms=25.0, samples_per_second=320.0, peak_memory_mb=40.0, gflops=0.4, executed_gflops=0.5)


def test_the_summary_states_speed_up_efficiency_memory_and_padding() -> None:
    """Five times fewer multiply-adds and four times the speed: 80 %; a fifth of the executed work is padding."""
    part = latency(pruned_ms=3.125, speedup=4.0, flops_ratio=5.0, efficiency=0.8, pruned=PRUNED)
    assert times.summary(part) == (
        "Batch size 8: speed-up 4.00x with 5.00x fewer multiply-adds, realised efficiency 80 %, peak memory 0.80x, "
        "20.0 % of the executed multiply-adds are padding."
    )


def test_a_model_that_saves_nothing_has_no_efficiency() -> None:
    """With a threshold scale near 0 the scores cost something and no token is pruned."""
    costly = model(gflops=2.2, executed_gflops=2.2, peak_memory_mb=None)
    part = latency(pruned_ms=12.5, speedup=1.0, flops_ratio=2 / 2.2, efficiency=1.1, pruned=costly)
    assert times.summary(part) == (
        "Batch size 8: speed-up 1.00x; nothing is saved, the pruned model needs 1.10x the multiply-adds."
    )


def test_a_pruned_model_that_is_slower_is_marked() -> None:
    """A small model at batch size 1 can lose more time on extra calls than it saves on products."""
    slow = model(median_ms=125.0, peak_memory_mb=None)
    part = latency(pruned_ms=15.6, speedup=0.8, flops_ratio=2.0, efficiency=0.4, pruned=slow)
    assert times.summary(part).startswith("Batch size 8: speed-up 0.80x (slower than dense) with 2.00x fewer")


def test_a_dense_model_alone_has_a_rate() -> None:
    """Two GFLOPs, eighty times per second."""
    assert times.summary(latency()) == "Batch size 8: 160 GFLOPs per second."
    assert len(list(times.rows(latency()))) == 1


def test_a_row_has_the_times_of_a_batch_and_of_a_sample() -> None:
    """Dense comes first; memory is empty where the device cannot measure it."""
    rows = list(times.rows(latency(pruned=model(peak_memory_mb=None))))
    assert rows[0] == ("8, dense", "100", "90.0-2,000", "12.5", "80.0", "50.0")
    assert (rows[1][0], rows[1][-1]) == ("8, pruned", "")


def test_a_report_without_its_comparison_is_refused() -> None:
    """A pruned model without a speed-up cannot be summarised."""
    with pytest.raises(ValueError, match="lacks the comparison"):
        times.summary(latency(pruned=PRUNED))
