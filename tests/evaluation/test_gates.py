"""Gates: where their figures are in a report, and which verdict an interval gives."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from madtp_cli.config import CompressSettings, EvalSettings
from madtp_cli.config.gates import Gate, GateSettings
from madtp_cli.errors import InputError
from madtp_cli.evaluation import gates
from madtp_cli.reporting.schema import CheckedGflops, GatePart, GflopsPart, Interval, ProfileReport
from tests.reports import ENVIRONMENT, change, compress_report, latency


def gate(report: Any = None, **settings: Any) -> GatePart:
    """Return the verdict on the only gate of the settings."""
    (part,) = gates.decide(report or compress_report(), EvalSettings(**settings)).gates
    return part


@pytest.mark.parametrize(
    ("settings", "value", "low", "high"),
    [
        ({"max_gflops": 0.2}, 0.2, None, None),
        ({"max_share": 0.2}, 0.2, None, None),
        ({"min_quality": 96}, 97.0, 96.3, 97.6),
        ({"max_drop": 1.5}, 1.0, 0.5, 1.5),
        ({"max_latency_ms": 5.6}, 5.0, 10 / 2.2, 10 / 1.8),
        ({"min_speedup": 1.8}, 2.0, 1.8, 2.2),
        ({"min_agreement": 96}, 97.0, 96.0, 98.0),
    ],
)
def test_each_gate_reads_its_figure_and_its_interval(settings, value, low, high) -> None:
    """The bound is at the end of the interval or beyond it, so each gate passes."""
    part = gate(**settings)
    assert part.value == pytest.approx(value)
    ends = None if part.interval is None else (part.interval.low, part.interval.high)
    assert ends == (None if low is None else pytest.approx((low, high)))
    assert (part.verdict, part.failed, part.failure_class) == ("pass", False, None)


@pytest.mark.parametrize(
    ("settings", "failure_class"),
    [
        ({"max_gflops": 0.19}, "cost"),
        ({"max_share": 0.19}, "cost"),
        ({"min_quality": 98}, "quality"),
        ({"max_drop": 0.4}, "quality"),
        ({"max_latency_ms": 4.0}, "speed"),
        ({"min_speedup": 2.3}, "speed"),
        ({"min_agreement": 99}, "quality"),
    ],
)
def test_each_gate_fails_when_its_whole_interval_misses_the_bound(settings, failure_class) -> None:
    """A pipeline reads the class to decide what to do."""
    part = gate(**settings)
    assert (part.verdict, part.failed, part.failure_class) == ("fail", True, failure_class)


@pytest.mark.parametrize(("bound", "on_point"), [(0.9, "fail"), (1.1, "pass")])
def test_a_bound_within_the_interval_is_inconclusive(bound, on_point) -> None:
    """On either side of the figure; it fails unless that is allowed, and with confidence 0 the figure alone decides."""
    part = gate(max_drop=bound)
    assert (part.verdict, part.failed, part.failure_class) == ("inconclusive", True, "inconclusive")
    allowed = gate(max_drop=bound, allow_inconclusive=True)
    assert (allowed.verdict, allowed.failed, allowed.failure_class) == ("inconclusive", False, None)
    assert gate(max_drop=bound, confidence=0).verdict == on_point


def test_less_confidence_makes_the_interval_narrower() -> None:
    """The normal quantiles of 68.27 % and 95 % are 1 and 1.96: the loss of 1 point has 0.745 to 1.255."""
    part = gate(max_drop=1.3, confidence=0.6827)
    assert part.interval is not None
    assert (part.interval.low, part.interval.high) == pytest.approx((1 - 0.5 / 1.96, 1 + 0.5 / 1.96), abs=1e-4)
    assert part.verdict == "pass"
    assert gate(max_drop=1.3).verdict == "inconclusive"
    assert gate(max_drop=1.55, confidence=0.99).verdict == "inconclusive"


def test_a_gain_too_large_to_believe_is_anomalous() -> None:
    """Pruning does not make a model much better; a wrong split or a broken dense model does."""
    report = compress_report(quality=change(6.0, 5.5, 6.5))
    part = gates.decide(report, EvalSettings(max_drop=1, min_quality=50, max_share=0.5))
    assert [one.verdict for one in part.gates] == ["pass", "anomalous", "anomalous"]
    assert (part.passed, part.failure_class) == (False, "anomalous")
    assert gate(report, max_drop=1, max_gain=6.0).verdict == "pass"
    allowed = gates.decide(report, EvalSettings(max_drop=1, allow_inconclusive=True))
    assert not allowed.passed


def test_a_change_of_cider_is_compared_in_percent_of_the_dense_score() -> None:
    """A loss of 1.2 of 80 CIDEr is 1.5 %; the report has the percentage."""
    part = gate(compress_report(quality=change(-1.5, -1.6, -1.4, unit="percent of the dense score")), max_drop=2)
    assert (part.value, part.unit, part.verdict) == (1.5, "percent of the dense score", "pass")


def test_a_loss_of_exactly_the_bound_passes() -> None:
    """90 - 89.8 is 0.20000000000000284 in floating point."""
    assert 90 - 89.8 > 0.2
    report = compress_report(quality=change(89.8 - 90, -1.2, 1.0))
    assert gate(report, max_drop=0.2, confidence=0).verdict == "pass"


def profile_report(**updates: Any) -> ProfileReport:
    """Return a report of `madtp profile` on a dense model."""
    return ProfileReport(
        command="profile",
        checkpoint="blip.pt",
        task="nlvr2",
        data="nlvr2",
        samples=8,
        gflops=CheckedGflops(dense=1.0, fvcore=1.0, formula=1.0, fvcore_samples=8),
        towers={},
        layers=[],
        parameters=10,
        environment=ENVIRONMENT,
    ).model_copy(update=updates)


def test_of_several_batch_sizes_the_worst_one_counts() -> None:
    """A profile has times by batch size."""
    report = profile_report(latency=[latency(3.0, 2.9, 3.1), latency(2.0, 1.9, 2.1)])
    assert gate(report, min_speedup=2.5).value == 2.0
    assert gate(report, max_latency_ms=4).value == 5.0


def test_the_cost_of_a_dense_model_is_that_of_all_tokens() -> None:
    """It has no pruned figure and no share."""
    assert gate(profile_report(), max_gflops=1).verdict == "pass"
    with pytest.raises(InputError, match="--max-share"):
        gate(profile_report(), max_share=0.5)


def test_a_report_without_the_figure_is_refused() -> None:
    """The message names the option and how to measure."""
    with pytest.raises(InputError, match=r"no figure for --min-agreement .*\n.*--data"):
        gate(compress_report(agreement=None), min_agreement=90)


def test_the_most_serious_failure_is_the_class_of_the_run() -> None:
    """Quality before speed, and a failure before a doubt."""
    part = gates.decide(compress_report(), EvalSettings(max_drop=0.4, min_speedup=3, min_agreement=97))
    assert [one.failure_class for one in part.gates] == ["quality", "speed", "inconclusive"]
    assert part.failure_class == "quality"


def test_a_new_figure_gets_a_gate_by_one_declaration() -> None:
    """A field with a `Gate`: here the share of the budget that was used on the validation samples."""

    class More(GateSettings):
        max_budget_share: Annotated[
            float | None, Field(gt=0), Gate("share on validation", "cost", ("budget.achieved_share",), "of dense")
        ] = None

    (part,) = gates.decide(compress_report(), More(max_budget_share=0.1)).gates
    assert (part.name, part.value, part.verdict, part.failure_class) == ("max_budget_share", 0.2, "fail", "cost")


def test_every_path_of_every_gate_leads_to_a_field_of_a_report() -> None:
    """A renamed field must not make a gate silent."""
    found = {name: gates.figure_of(compress_report(), gate, gates.is_largest(name)) for name, gate in declared()}
    assert [name for name, figure in found.items() if figure is None] == []
    assert CompressSettings.model_fields.keys() >= dict(declared()).keys()


def declared() -> list[tuple[str, Gate]]:
    """Return the gates that every task has."""
    from madtp_cli.config.gates import gates as all_gates

    return [(name, gate) for name, gate in all_gates(GateSettings).items() if gate.task is None]


def test_an_infinite_interval_is_inconclusive() -> None:
    """A single group of samples has no variance."""
    quality = change().model_copy(update={"interval95": Interval(low=float("-inf"), high=float("inf"))})
    assert gate(compress_report(quality=quality), max_drop=1).verdict == "inconclusive"
    assert gate(compress_report(quality=quality), max_drop=1, confidence=0).verdict == "pass"


def test_the_share_is_that_of_the_reported_samples() -> None:
    """Not that of the validation samples, which met the budget."""
    assert gate(compress_report(gflops=GflopsPart.of(1.0, 0.203)), max_share=0.2).failed
