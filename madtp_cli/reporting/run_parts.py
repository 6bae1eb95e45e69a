"""The parts of a report on how a run computed, and how often two models give the same answers."""

from __future__ import annotations

from madtp_cli.reporting.parts import Interval, Part


class ComputePart(Part):
    """Where and in which number format the forward passes ran."""

    device: str
    """The torch device, such as cpu or cuda."""
    dtype: str
    """Number format of the forward passes, such as float32."""


class AgreementPart(Part):
    """How often the pruned model gives the answer of the dense model."""

    percent: float
    """Share of the answers that are the same, in percent."""
    answers: int
    """Number of answers."""
    interval95: Interval
    """95 % confidence interval of `percent`, in percent."""
