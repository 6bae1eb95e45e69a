"""The announced time covers the whole run and is right within 30 % after a tenth of it, all with a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import CLOCK, Forecast

#: A run: its planned stages, and how many times longer than planned stages with this kind of work take.
PLAN = [
    PlannedStage("Calibrating roughly", 4.0, "pruned"),
    PlannedStage("Fine-tuning", 100.0, "training"),
    PlannedStage("Validating after step 90", 8.0, "pruned"),
    PlannedStage("Validating after step 100", 8.0, "pruned"),
    PlannedStage("A stage that is not needed", 10.0, "pruned"),
    PlannedStage("Evaluating the dense model", 40.0, "dense"),
    PlannedStage("Evaluating the pruned model", 10.0, "pruned"),
    PlannedStage("Timing", 10.0, CLOCK),
    PlannedStage("Saving", 1.0, "files"),
]


class Run(ProgressReporter):
    """Moves a clock through a run, and keeps what is announced at each moment."""

    def __init__(self, factor: Callable[[str], float]) -> None:
        self.now, self.factor = 0.0, factor
        self.announced: list[tuple[float, float]] = []
        self.forecast = Forecast(self, clock=lambda: self.now)

    def expect(self, seconds: float) -> None:
        self.announced.append((self.now, seconds))

    def stage(self, planned: PlannedStage, parts: int) -> Iterator[int]:
        """Run a stage in equal parts."""
        self.forecast.start(planned.title, parts)
        for part in range(parts):
            self.now += planned.seconds * self.factor(planned.work) / parts
            self.forecast.advance(part + 1)
            yield part + 1
        self.forecast.finish()

    def run(self) -> None:
        """Run the plan: two validations are inside of the fine-tune, and one stage is left out."""
        self.forecast.plan(PLAN)
        rough, training, first, second, _, *others = PLAN
        list(self.stage(rough, 7))
        inside = {90: first, 100: second}
        for step in self.stage(training, 100):
            if step in inside:
                list(self.stage(inside[step], 4))
        for planned in others:
            list(self.stage(planned, 20))


@pytest.mark.parametrize("slower", [0.25, 1.0, 5.0])
def test_on_a_machine_of_another_speed_the_announced_time_is_soon_right(slower) -> None:
    """The first stages tell how fast the machine is. A stage that takes the same time everywhere stays as planned."""
    run = Run(lambda work: 1.0 if work == CLOCK else slower)
    run.run()
    late = [(run.now - now, left) for now, left in run.announced if now >= run.now / 10]
    assert len(late) > 100
    assert all(left == pytest.approx(true, rel=0.3, abs=1.0) for true, left in late)


def test_wrong_ratios_between_kinds_of_work_are_corrected() -> None:
    """Each kind of work has its own factor, which its first stage shows."""
    run = Run(lambda work: {"pruned": 1.5, "training": 0.7}.get(work, 1.0))
    run.run()
    late = [(run.now - now, left) for now, left in run.announced if now >= run.now / 10]
    assert all(left == pytest.approx(true, rel=0.3, abs=1.0) for true, left in late)


def test_a_stage_that_knows_its_own_rest_is_believed() -> None:
    """Stages inside it and after it are added to what it says."""
    run = Run(lambda work: 1.0)
    run.forecast.plan(PLAN[1:4])
    run.forecast.start("Fine-tuning", 100)
    run.now = 30.0
    run.forecast.expect(70.0)
    assert run.announced[-1] == (30.0, 70.0 + 8.0 + 8.0)
    run.now = 40.0
    assert run.forecast.left() == pytest.approx(60.0 + 8.0 + 8.0)


def test_without_a_plan_only_the_speed_of_the_stage_is_known() -> None:
    """Nothing is announced before the first part is done."""
    run = Run(lambda work: 1.0)
    run.forecast.start("Decoding images", 10)
    assert run.announced == []
    run.now = 2.0
    run.forecast.advance(4)
    assert run.announced == [(2.0, 3.0)]


def test_a_stage_that_takes_longer_than_planned_is_not_announced_as_done() -> None:
    """Without a count, a part of the time so far is expected to come."""
    run = Run(lambda work: 1.0)
    run.forecast.plan([PlannedStage("Tracing", 10.0)])
    run.forecast.start("Tracing", 0)
    run.now = 20.0
    assert run.forecast.left() == pytest.approx(4.0)


def test_a_forecast_is_used_as_it_is() -> None:
    """Otherwise a pipeline that calls another one would announce two times."""
    forecast = Forecast(ProgressReporter())
    assert Forecast.of(forecast) is forecast
    assert isinstance(Forecast.of(None).reporter, ProgressReporter)
