"""The part of a report on gates: bounds on its figures, and a verdict on each."""

from __future__ import annotations

from typing import Literal

from madtp_cli.reporting.parts import Interval, Part

Verdict = Literal["pass", "fail", "inconclusive", "anomalous"]
FailureClass = Literal["anomalous", "quality", "cost", "speed", "inconclusive"]
#: The failure classes, the most serious one first: a result that cannot be right explains all others.
SEVERITY: tuple[FailureClass, ...] = ("anomalous", "quality", "cost", "speed", "inconclusive")


class GatePart(Part):
    """One gate: a figure, its bound, and the verdict."""

    name: str
    """Name of the gate, as the setting of its bound has it."""
    figure: str
    """The figure in words."""
    value: float
    """The figure, in `unit`."""
    interval: Interval | None = None
    """Interval of `value` at the confidence of the gates, in `unit`; null for a figure without one."""
    bound: float
    """The largest value that is allowed, for names with max, or the smallest, for names with min; in `unit`."""
    unit: str
    """Unit of `value`, `interval` and `bound`."""
    verdict: Verdict
    """pass or fail: the whole interval is on one side of the bound; inconclusive: the interval contains the bound;
    anomalous: the quality rose more than can be believed."""
    failed: bool
    """Whether the gate fails the check: anything but pass, and inconclusive unless that is allowed."""
    failure_class: FailureClass | None = None
    """Why the gate failed; null if it did not."""


class GatesPart(Part):
    """All gates of a run."""

    passed: bool
    """Whether no gate failed."""
    failure_class: FailureClass | None = None
    """The most serious failure class of the gates; null if all passed."""
    confidence: float
    """Confidence of the intervals, as a share from 0 to 1; 0 compares the figures alone."""
    allow_inconclusive: bool
    """Whether inconclusive gates pass."""
    max_gain: float
    """Largest gain of quality that is believed, in points; for CIDEr in percent of the dense score."""
    baseline: str | None = None
    """Path of the earlier report; null without one."""
    differences: tuple[str, ...] = ()
    """What differs between this run and the baseline."""
    gates: list[GatePart]
    """The gates, in the order of their options; those that compare with the baseline come last."""

    def sentence(self) -> str:
        """Return the result in one sentence."""
        failed = [gate.name.replace("_", "-") for gate in self.gates if gate.failed]
        if not failed:
            return f"All {len(self.gates)} gates passed." if len(self.gates) > 1 else "The gate passed."
        return f"{len(failed)} of {len(self.gates)} gates failed: {', '.join(failed)}."
