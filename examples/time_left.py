"""Run a command and compare the time left that it announces with the time that it then takes.

    python examples/time_left.py [--cpu-time] compress examples/blip.pt --gflops-budget 0.2 --output build/x

`--cpu-time` measures the CPU time of the process instead of the time on the clock, so that other programs on the
machine matter less; give OMP_NUM_THREADS=1 with it. The table has the announced and the true time left after a tenth,
a quarter, a half and three quarters of the run, and the longest time without a stage, in which a user sees nothing.
"""

from __future__ import annotations

import bisect
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from madtp_cli.progress import ProgressReporter

#: Shares of a run after which the announced time is looked at.
SHARES = (0.1, 0.25, 0.5, 0.75)


@dataclass
class Recorder(ProgressReporter):
    """Keeps what a run announces.

    Attributes:
        announced: (time, announced seconds until the end of the run), in the order of time.
        stages: (name, start, end) of each stage that is not inside another one.
    """

    announced: list[tuple[float, float]] = field(default_factory=list)
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    _open: list[tuple[str, float]] = field(default_factory=list)

    def start(self, stage: str, total: int) -> None:
        self._open.append((stage, time.monotonic()))

    def expect(self, seconds: float) -> None:
        self.announced.append((time.monotonic(), seconds))

    def finish(self) -> None:
        stage, started = self._open.pop()
        if not self._open:
            self.stages.append((stage, started, time.monotonic()))

    def left_at(self, moment: float) -> float | None:
        """Return the time left that a user sees at a moment: the last announcement, counted down."""
        number = bisect.bisect_right([time for time, _ in self.announced], moment)
        if not number:
            return None
        announced, seconds = self.announced[number - 1]
        return max(0.0, seconds - (moment - announced))

    def longest_silence(self, started: float, ended: float) -> float:
        """Return the longest time between stages."""
        starts = [start for _, start, _ in self.stages] + [ended]
        ends = [started] + [end for _, _, end in self.stages]
        return max(start - end for start, end in zip(starts, ends, strict=True))


def errors(recorder: Recorder, started: float, ended: float) -> list[tuple[float, float | None, float]]:
    """Return (share of the run, announced seconds, true seconds) at each of `SHARES`."""
    moments = [started + share * (ended - started) for share in SHARES]
    return [(share, recorder.left_at(moment), ended - moment) for share, moment in zip(SHARES, moments, strict=True)]


def show(recorder: Recorder, started: float, ended: float) -> None:
    """Print the duration of each stage, the errors of the announced times, and the longest silence."""
    for stage, start, end in recorder.stages:
        print(f"{stage:56s} {end - start:8.1f} s")
    print(f"{'all':56s} {ended - started:8.1f} s\n")
    for share, announced, true in errors(recorder, started, ended):
        seen = "nothing" if announced is None else f"{announced:7.1f} s ({announced / true - 1:+.0%})"
        print(f"after {share:4.0%}: {true:7.1f} s left, announced: {seen}")
    print(f"longest time without a stage: {recorder.longest_silence(started, ended):.1f} s")


def main(arguments: Sequence[str]) -> None:
    if "--cpu-time" in arguments:
        time.monotonic = time.perf_counter = time.process_time  # before a module of the package takes one of them
    recorder, started = Recorder(), time.monotonic()
    from madtp_cli.cli import app, console, exit_codes

    class Terminal(console.Terminal):
        """A terminal that also records the progress."""

        def start(self, stage: str, total: int) -> None:
            super().start(stage, total)
            recorder.start(stage, total)

        def expect(self, seconds: float) -> None:
            super().expect(seconds)
            recorder.expect(seconds)

        def finish(self) -> None:
            super().finish()
            recorder.finish()

    exit_codes.Terminal = Terminal  # type: ignore[misc]
    sys.argv = ["madtp", *(argument for argument in arguments if argument != "--cpu-time")]
    try:
        app.main()
    finally:
        show(recorder, started, time.monotonic())


if __name__ == "__main__":
    main(sys.argv[1:])
