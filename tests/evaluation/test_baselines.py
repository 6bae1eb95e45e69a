"""Comparing a report with an earlier one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from madtp_cli.config import EvalSettings
from madtp_cli.errors import InputError
from madtp_cli.evaluation import baselines, gates
from madtp_cli.reporting.schema import ComputePart, EvalReport, GatePart, GflopsPart, Interval, QualityPart
from tests.reports import ENVIRONMENT, change, compress_report, latency


def compared(report: Any, baseline: Any, **settings: Any) -> dict[str, GatePart]:
    """Return the verdicts of the comparison by name."""
    given = EvalSettings(**settings)
    part = gates.decide(report, given, baselines.comparisons(report, baseline, given))
    return {gate.name: gate for gate in part.gates}


def test_the_same_report_passes() -> None:
    """Nothing got worse."""
    found = compared(compress_report(), compress_report())
    assert {name: (gate.value, gate.verdict) for name, gate in found.items()} == {
        "max_regression": (0.0, "pass"),
        "max_growth": (0.0, "pass"),
        "max_slowdown": (0.0, "inconclusive"),  # the speed-up of each is known to 10 %
    }


def test_with_the_same_dense_model_the_paired_changes_are_compared() -> None:
    """Their intervals are narrower: 0.3 and 0.4 points give 0.5, whose bound decides."""
    report = compress_report(quality=change(-1.2, -1.5, -0.9))
    baseline = compress_report(quality=change(-1.0, -1.4, -0.6))
    gate = compared(report, baseline)["max_regression"]
    assert gate.interval is not None
    assert (gate.value, gate.interval.low, gate.interval.high) == pytest.approx((0.2, -0.3, 0.7))
    assert gate.verdict == "pass"
    assert compared(report, baseline, max_regression=0.5)["max_regression"].verdict == "inconclusive"
    worse = compress_report(quality=change(-3.0, -3.3, -2.7))
    assert compared(worse, baseline)["max_regression"].failure_class == "quality"


def evaluated(value: float) -> EvalReport:
    """Return a report of `madtp eval` with a quality known to one point."""
    quality = QualityPart(
        metric="accuracy", split="test", samples=2000, groups=2000, value=value,
        interval95=Interval(low=value - 1, high=value + 1),
    )  # fmt: skip
    return EvalReport(
        command="eval", checkpoint="x", task="nlvr2", data="/there/nlvr2", quality=quality,
        gflops=GflopsPart.of(1.0, 0.21), environment=ENVIRONMENT, seconds=1.0,
        compute=ComputePart(device="cpu", dtype="float32"),
    )  # fmt: skip


def test_without_a_dense_model_the_qualities_are_compared() -> None:
    """The intervals of two independent measurements: the root of the sum of the squares."""
    found = compared(evaluated(96.0), evaluated(97.0), max_regression=2.5)
    gate = found["max_regression"]
    assert gate.interval is not None
    assert gate.value == pytest.approx(1.0)
    assert (gate.interval.low, gate.interval.high) == pytest.approx((1 - math.sqrt(2), 1 + math.sqrt(2)))
    assert "max_slowdown" not in found  # eval measured no times


def test_a_higher_cost_or_a_lower_speed_up_fails() -> None:
    """5 % more GFLOPs; a speed-up of 1.5 instead of 2."""
    report = compress_report(gflops=GflopsPart.of(1.0, 0.21), latency=latency(1.5, 1.49, 1.51))
    found = compared(report, compress_report(latency=latency(2.0, 1.99, 2.01)))
    assert found["max_growth"].value == pytest.approx(5)
    assert (found["max_growth"].failure_class, found["max_slowdown"].failure_class) == ("cost", "speed")
    assert found["max_slowdown"].value == pytest.approx(25)


def test_a_large_gain_over_the_baseline_is_anomalous() -> None:
    """As one over the dense model is."""
    found = compared(evaluated(97.0), evaluated(90.0))
    assert found["max_regression"].verdict == "anomalous"


@pytest.mark.parametrize(
    ("updates", "name"),
    [
        ({"data": "/here/other"}, "data: other, in the baseline nlvr2"),
        ({"quality": change(samples=100)}, "samples: 100, in the baseline 2000"),
        ({"quality": change(split="val")}, "split: val"),
        ({"compute": ComputePart(device="cuda", dtype="float32")}, "device: cuda"),
        ({"compute": ComputePart(device="cpu", dtype="bfloat16")}, "dtype: bfloat16"),
        ({"environment": ENVIRONMENT.model_copy(update={"torch": "2.14.0"})}, "torch: 2.14.0, in the baseline 2.13.0"),
    ],
)
def test_a_baseline_that_was_made_otherwise_is_refused(updates, name) -> None:
    """Unless the user allows it; then the difference is part of the result."""
    here, baseline = baselines.conditions(compress_report(**updates)), compress_report()
    with pytest.raises(InputError, match="--allow-differences") as caught:
        baselines.require_comparable(here, baseline, EvalSettings())
    assert name in str(caught.value)
    (difference,) = baselines.require_comparable(here, baseline, EvalSettings(allow_differences=True))
    assert name in difference


def test_the_same_data_in_another_folder_is_the_same() -> None:
    """A pipeline checks out to another path than a developer; the name, the split and the counts must agree."""
    assert baselines.require_comparable(baselines.conditions(evaluated(97.0)), compress_report(), EvalSettings()) == ()
