"""Decide the gates of a report: compare figures with bounds, where the confidence interval decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from madtp_cli.config.gates import Gate, GateSettings
from madtp_cli.errors import InputError
from madtp_cli.evaluation.intervals import at_confidence
from madtp_cli.reporting.gate_parts import SEVERITY, FailureClass, GatePart, GatesPart, Verdict
from madtp_cli.reporting.parts import Interval

#: Paths of the change of quality by pruning in a report.
CHANGES = ("quality.change", "change.change")
#: A figure is at its bound if it differs by less than this share: 98.0 - 97.0 is not exactly 1.
ROUNDING = 1e-9


class Figure(NamedTuple):
    """A figure of a report and its 95 % confidence interval, if it has one."""

    value: float
    interval95: tuple[float, float] | None = None

    def falls(self) -> Figure:
        """Return how much a change falls, instead of how much it rises."""
        interval = None if self.interval95 is None else (-self.interval95[1], -self.interval95[0])
        return Figure(-self.value, interval)


class Question(NamedTuple):
    """A gate with its figure, ready to be decided. `gain` is how much the quality rose, if the figure depends on it."""

    name: str
    words: str
    subject: FailureClass
    figure: Figure
    bound: float
    unit: str
    gain: float | None = None


def decide(report: BaseModel, settings: GateSettings, comparisons: Sequence[Question] = ()) -> GatesPart:
    """Return the verdicts on all gates of the settings.

    Args:
        report: The report that has the figures.
        settings: The gates and how they are decided.
        comparisons: Further gates, such as those that compare with a baseline.

    Raises:
        InputError: The report has no figure for a gate.
    """
    decided = [decided_gate(question, settings) for question in (*questions(report, settings), *comparisons)]
    classes = {gate.failure_class for gate in decided}
    return GatesPart(
        passed=not any(gate.failed for gate in decided),
        failure_class=next((name for name in SEVERITY if name in classes), None),
        confidence=settings.confidence,
        allow_inconclusive=settings.allow_inconclusive,
        max_gain=settings.max_gain,
        baseline=None if settings.baseline is None else str(settings.baseline),
        gates=decided,
    )


def questions(report: BaseModel, settings: GateSettings) -> Iterator[Question]:
    """Yield the gates of the settings with their figures in a report.

    Raises:
        InputError: The report has no figure for a gate.
    """
    gain = next((found for path in CHANGES for found in _at(report, path)), None)
    for name, (gate, bound) in settings.requested_gates().items():
        figure = figure_of(report, gate, largest=is_largest(name))
        if figure is None:
            raise InputError(_missing(report, name, gate))
        unit = next((found for path in gate.unit_at for found in _at(report, path)), gate.unit)
        yield Question(name, gate.words, gate.subject, figure, bound, unit, gain if gate.subject == "quality" else None)


def is_largest(name: str) -> bool:
    """Return whether the bound of a gate is the largest allowed value, and not the smallest.

    >>> is_largest("max_drop"), is_largest("min_quality")
    (True, False)
    """
    return name.startswith("max_")


def figure_of(report: BaseModel, gate: Gate, largest: bool) -> Figure | None:
    """Return the figure of a gate in a report, None if it has none.

    Of several, such as times by batch size, the worst one counts.
    """
    for path in gate.figures:
        value_path, _, interval_path = path.partition("|")
        intervals = [(part.low, part.high) for part in _at(report, interval_path)]
        values = [float(value) for value in _at(report, value_path)]
        figures = [
            Figure(value, intervals[number] if len(intervals) == len(values) else None)
            for number, value in enumerate(values)
        ]
        if figures:
            worst = (max if largest else min)(figures, key=lambda figure: figure.value)
            return worst.falls() if gate.falls else worst
    return None


def _at(report: BaseModel, path: str) -> list[Any]:
    """Return what a report has at a dotted path: nothing, one value, or one for each entry of a list on the way."""
    found: list[Any] = [report]
    for name in path.split("."):
        values = [getattr(value, name, None) for value in found]
        found = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
        found = [value for value in found if value is not None]
    return found


def _missing(report: BaseModel, name: str, gate: Gate) -> str:
    option = "--" + name.replace("_", "-")
    return (
        f"The report of `madtp {getattr(report, 'command', '')}` has no figure for {option} ({gate.words}).\n"
        "Measure it: give the checkpoint with --data, or leave out the gate."
    )


def decided_gate(question: Question, settings: GateSettings) -> GatePart:
    """Return the verdict on one gate."""
    value, interval95 = question.figure
    interval = None if interval95 is None else at_confidence(value, interval95, settings.confidence)
    low, high = interval or (value, value)
    verdict = _verdict(low, high, question.bound, is_largest(question.name))
    if question.gain is not None and question.gain > settings.max_gain:
        verdict = "anomalous"
    failed = verdict in ("fail", "anomalous") or (verdict == "inconclusive" and not settings.allow_inconclusive)
    reason = question.subject if verdict == "pass" or verdict == "fail" else verdict
    return GatePart(
        name=question.name,
        figure=question.words,
        value=value,
        interval=None if interval is None else Interval.of(interval),
        bound=question.bound,
        unit=question.unit,
        verdict=verdict,
        failed=failed,
        failure_class=reason if failed else None,
    )


def _verdict(low: float, high: float, bound: float, largest: bool) -> Verdict:
    """Compare an interval with a bound: the largest allowed value, or the smallest."""
    if not largest:
        low, high, bound = -high, -low, -bound
    margin = ROUNDING * max(1.0, abs(bound))
    if high <= bound + margin:
        return "pass"
    return "fail" if low > bound + margin else "inconclusive"
