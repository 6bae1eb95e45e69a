"""The time that a run still needs: the durations of its planned stages, corrected by the stages that ran."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from madtp_cli.progress import PlannedStage, ProgressReporter

#: Stages with this kind of work take the same time on every machine.
CLOCK = "clock"
#: From this share of a stage on, its speed alone tells how long the rest takes. Before, its plan counts too.
TRUSTED_SHARE = 0.2
#: From this share of a stage on, its speed corrects the stages after it.
TELLING_SHARE = 0.03
#: A stage without a count that takes longer than planned is expected to take this share of its time so far longer.
LATE_SHARE = 0.2


@dataclass
class _Running:
    """A stage that has started."""

    title: str
    total: int
    planned: PlannedStage | None
    started: float
    done: int = 0
    inside: float = 0.0
    reported: tuple[float, float] | None = None

    def own(self, now: float) -> float:
        """Return the seconds of the stage so far, without finished stages inside it."""
        return now - self.started - self.inside

    def left(self, own: float, expected: float | None) -> float | None:
        """Return the seconds until the end of the stage.

        Args:
            own: Seconds so far.
            expected: The planned duration on this machine; None for a stage that is not planned.
        """
        if self.reported is not None:
            seconds, since = self.reported
            return max(0.0, seconds - (own - since))
        share = self.done / self.total if self.total else 0.0
        by_speed = own / share * (1 - share) if share else None
        if expected is None:
            return by_speed
        if by_speed is None:
            return max(expected - own, LATE_SHARE * own)
        trust = min(1.0, share / TRUSTED_SHARE)
        return trust * by_speed + (1 - trust) * expected * (1 - share)

    def share(self, own: float) -> float:
        """Return which share of the stage is done, as far as its count or the run tells, 0 to 1."""
        if self.reported is not None:
            left = max(0.0, self.reported[0] - (own - self.reported[1]))
            return own / (own + left) if own else 0.0
        return self.done / self.total if self.total else 0.0


@dataclass
class _Factor:
    """How much longer than planned some stages took: their seconds, and the seconds that were planned."""

    taken: float = 0.0
    planned: float = 0.0

    def add(self, taken: float, planned: float) -> None:
        """Add a stage, or the part of it that is done."""
        self.taken += taken
        self.planned += planned


@dataclass
class Forecast(ProgressReporter):
    """Passes the progress of a run on to a reporter, and tells it how long the whole run still takes.

    Attributes:
        reporter: Receives everything; its `expect` receives the seconds until the end of the run.
        clock: Returns the time in seconds.
    """

    reporter: ProgressReporter
    clock: Callable[[], float] = time.monotonic
    _upcoming: list[PlannedStage] = field(default_factory=list)
    _running: list[_Running] = field(default_factory=list)
    _finished: dict[str, _Factor] = field(default_factory=dict)

    @classmethod
    def of(cls, reporter: ProgressReporter | None) -> Forecast:
        """Return a forecast for a reporter; a forecast is returned as it is."""
        return reporter if isinstance(reporter, cls) else cls(reporter or ProgressReporter())

    def message(self, text: str) -> None:
        """Pass on a message."""
        self.reporter.message(text)

    def plan(self, stages: Sequence[PlannedStage]) -> None:
        """Set the stages that follow."""
        self._upcoming = list(stages)
        self.reporter.plan(stages)
        self._tell()

    def start(self, stage: str, total: int) -> None:
        """Pass on the start of a stage. Stages that were planned before it will not come."""
        titles = [planned.title for planned in self._upcoming]
        planned = None
        if stage in titles:
            number = titles.index(stage)
            planned = self._upcoming[number]
            del self._upcoming[: number + 1]
        self._running.append(_Running(stage, total, planned, self.clock()))
        self.reporter.start(stage, total)
        self._tell()

    def advance(self, done: int, detail: str = "") -> None:
        """Pass on how much of the stage is done."""
        self._running[-1].done = done
        self.reporter.advance(done, detail)
        self._tell()

    def figures(self, **values: float) -> None:
        """Pass on figures."""
        self.reporter.figures(**values)

    def expect(self, seconds: float) -> None:
        """Set how long the current stage still takes, without the stages inside it."""
        stage = self._running[-1]
        stage.reported = seconds, stage.own(self.clock())
        self._tell()

    def finish(self) -> None:
        """Pass on the end of the stage; its duration corrects those of later stages."""
        now, stage = self.clock(), self._running.pop()
        if stage.planned is not None:
            self._finished.setdefault(stage.planned.work, _Factor()).add(stage.own(now), stage.planned.seconds)
        if self._running:
            self._running[-1].inside += now - stage.started
        self.reporter.finish()
        self._tell()

    def left(self) -> float | None:
        """Return the seconds until the end of the run; None if there is no plan."""
        now, factors = self.clock(), self._factors()
        seconds = [planned.seconds * _factor(factors, planned.work) for planned in self._upcoming]
        inner_start = now
        for stage in reversed(self._running):
            expected = stage.planned.seconds * _factor(factors, stage.planned.work) if stage.planned else None
            stage_left = stage.left(stage.own(inner_start), expected)
            inner_start = stage.started
            if stage_left is None and not seconds:
                return None
            seconds.append(stage_left or 0.0)
        return sum(seconds) if seconds else None

    def _factors(self) -> dict[str, _Factor]:
        """Return the factors of all kinds of work, with the stages that are running."""
        factors = {work: _Factor(found.taken, found.planned) for work, found in self._finished.items()}
        end = self.clock()
        for stage in reversed(self._running):
            own, end = stage.own(end), stage.started
            share = stage.share(own)
            if stage.planned is not None and share >= TELLING_SHARE:
                factors.setdefault(stage.planned.work, _Factor()).add(own, share * stage.planned.seconds)
        return factors

    def _tell(self) -> None:
        left = self.left()
        if left is not None and self._running:
            self.reporter.expect(left)


def _factor(factors: dict[str, _Factor], work: str) -> float:
    """Return how much longer than planned stages with this work take; of unknown work, as much as all others."""
    if work == CLOCK:
        return 1.0
    known = factors.get(work)
    if known is None or known.planned <= 0:
        known = _Factor()
        for other, found in factors.items():
            if other != CLOCK:
                known.add(found.taken, found.planned)
    return known.taken / known.planned if known.planned > 0 else 1.0
