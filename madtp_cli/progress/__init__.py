"""The interface through which a run reports its progress: to the terminal, to a notebook, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: The stage in which a command loads its checkpoint.
LOADING = "Loading the checkpoint"


@dataclass(frozen=True)
class PlannedStage:
    """A stage that a run will start later, and how long it is expected to take.

    Attributes:
        title: The name with which the stage starts.
        seconds: Its expected duration, without the stages inside it.
        work: What takes the time. Stages with the same word are expected to be wrong by the same factor. "clock" is
            for a stage whose duration does not depend on the speed of the machine.
    """

    title: str
    seconds: float
    work: str = "compute"


class ProgressReporter:
    """Receives the progress of a run. This base class ignores everything; subclasses override its methods.

    A run calls `start`, then `advance` any number of times, then `finish`. A stage may start inside another one.
    Stages that run several times have different names.
    """

    def message(self, text: str) -> None:
        """Receive a sentence that the user should read."""

    def plan(self, stages: Sequence[PlannedStage]) -> None:
        """Receive the stages that follow, in their order; an earlier plan is no longer valid."""

    def start(self, stage: str, total: int) -> None:
        """Receive the start of a stage of `total` samples or steps; 0 where the total is not known."""

    def advance(self, done: int, detail: str = "") -> None:
        """Receive how many samples or steps of the stage are done, and a short description of the current state."""

    def figures(self, **values: float) -> None:
        """Receive figures of the state that the next `advance` reports: loss, gflops, threshold_scale."""

    def expect(self, seconds: float) -> None:
        """Receive how long the current stage still takes, where a run knows it better than from its speed.

        The stages inside it do not count. A `Forecast` passes on how long the whole run still takes.
        """

    def finish(self) -> None:
        """Receive the end of the stage that started last."""
