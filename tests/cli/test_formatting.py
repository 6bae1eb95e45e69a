"""Lines that people read of a report."""

from __future__ import annotations

from typing import Any

from madtp_cli.cli import formatting
from madtp_cli.reporting.schema import LatencyPart, TimesPart


def times(**fields: Any) -> TimesPart:
    """Eight samples in 100 milliseconds, nothing padded, unless told."""
    usual = dict(median_ms=100.0, p5_ms=90.0, p95_ms=2000.0, samples_per_second=80.0, peak_memory_mb=50.0)
    return TimesPart(**{**usual, "gflops": 2.0, "executed_gflops": 2.0, **fields})


def part(**fields: Any) -> LatencyPart:
    """A batch of eight, and where and how it was timed."""
    where = dict(repeats=8, device="cpu", dtype="float32", threads=2, processor="x86_64 AVX2")
    usual = dict(batch_size=8, dense_ms=12.5, peak_memory_mb=50.0, dense=times())
    return LatencyPart(**{**where, **usual, **fields})


PRUNED = times(median_ms=25.0, samples_per_second=320.0, peak_memory_mb=40.0, gflops=0.4, executed_gflops=0.5)


def test_what_became_time_is_said_in_words() -> None:
    """Five times fewer multiply-adds, four times as fast: four fifths; and a fifth of what was executed is padding."""
    said = formatting.realised(part(pruned_ms=3.125, speedup=4.0, flops_ratio=5.0, efficiency=0.8, pruned=PRUNED))
    assert said == (
        "Batch 8: 4.00x as fast for 5.00x fewer multiply-adds, a realised efficiency of 80 %; peak memory 0.80x; "
        "20.0 % of what it executes is padding"
    )


def test_a_model_that_saves_nothing_is_not_praised() -> None:
    """A knob near nought scores tokens and drops none."""
    costly = times(gflops=2.2, executed_gflops=2.2, peak_memory_mb=None)
    said = formatting.realised(part(pruned_ms=12.5, speedup=1.0, flops_ratio=2 / 2.2, efficiency=1.1, pruned=costly))
    assert said == "Batch 8: 1.00x as fast and saves no multiply-adds, but costs 1.10x of dense"


def test_a_pruned_model_that_is_slower_is_called_so() -> None:
    """A small one at batch 1 starts more calls than it saves products."""
    slow = times(median_ms=125.0, peak_memory_mb=None)
    said = formatting.realised(part(pruned_ms=15.6, speedup=0.8, flops_ratio=2.0, efficiency=0.4, pruned=slow))
    assert said.startswith("Batch 8: slower than dense, 0.80x as fast for 2.00x fewer multiply-adds")


def test_a_dense_model_alone_has_a_speed() -> None:
    """Two GFLOPs, eighty times a second."""
    assert formatting.realised(part()) == "Batch 8: 160 GFLOPs per second"
    assert len(list(formatting.times(part()))) == 1


def test_rows_tell_a_batch_and_a_sample() -> None:
    """Dense first; memory only where the device can tell."""
    rows = list(formatting.times(part(pruned=times(peak_memory_mb=None))))
    assert rows[0] == ("8", "dense", "100", "90.0 to 2,000", "12.5", "80.0", "50.0")
    assert (rows[1][1], rows[1][-1]) == ("pruned", "")
