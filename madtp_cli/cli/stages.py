"""How the terminal shows a stage of a run: as a bar, or as plain lines where stderr is not a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

from madtp_cli.cli.formatting import duration

#: Seconds between plain progress lines.
PLAIN_EVERY = 5.0
#: Name of the thread that prints them.
THREAD = "progress lines"
#: Longest name of a stage that a bar shows, in columns.
TITLE_WIDTH = 36


class Stage:
    """The progress of one stage; `clock` returns the time in seconds."""

    def __init__(self, title: str, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.title, self.total, self.done, self.detail = title, total, 0, ""
        self._clock, self._started = clock, clock()
        self._expected: tuple[float, float] | None = None

    def advance(self, done: int, detail: str) -> None:
        """Set how many samples or steps are done, and the description of the current state."""
        self.done, self.detail = done, detail

    def expect(self, seconds: float) -> None:
        """Set how long the rest of the stage takes from now on."""
        self._expected = seconds, self._clock()

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._started

    def left(self) -> float | None:
        """Return the seconds until the end: as expected, or at the speed so far; None if unknown."""
        if self._expected is not None:
            seconds, since = self._expected
            return max(0.0, seconds - (self._clock() - since))
        if not self.total or not self.done:
            return None
        return self.elapsed() / self.done * (self.total - self.done)

    def line(self) -> str:
        """Return the progress as a line of text."""
        left = self.left()
        parts = [f"{self.done:,} of {self.total:,}"] if self.total else []
        parts.append(f"about {duration(left)} left" if left is not None else f"{duration(self.elapsed())} so far")
        return f"{self.title}: {', '.join(parts)}. {self.detail}".rstrip()


class StageLines:
    """Prints a line about a stage every few seconds, also while the stage does not advance."""

    def __init__(self, stage: Stage, write: Callable[[str], None], every: float = PLAIN_EVERY) -> None:
        self._stage, self._write, self._every = stage, write, every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=THREAD)
        self._thread.start()

    def update(self) -> None:
        """Do nothing: the lines come at fixed times."""

    def stop(self) -> None:
        """Print no more lines."""
        self._stopped.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            try:
                self._write(self._stage.line())
            except (BrokenPipeError, ValueError):  # the reader is gone; the main thread finds out by itself
                return


class StageBar:
    """A bar with count and time left; on a narrow terminal only the detail is cropped."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self._stage = stage
        title = Column(max_width=TITLE_WIDTH, no_wrap=True, overflow="ellipsis")
        detail = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=title),
            BarColumn(12),
            _Count(),
            _TimeLeft(stage),
            TextColumn("{task.fields[detail]}", markup=False, table_column=detail),
            console=console,
            transient=True,
            expand=True,
        )
        self._task = self._progress.add_task(stage.title, total=stage.total or None, detail="")
        self._progress.start()

    def update(self) -> None:
        """Draw the current state."""
        self._progress.update(self._task, completed=self._stage.done, detail=self._stage.detail)

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class _Count(MofNCompleteColumn):
    """How many of all samples or steps are done; nothing where their number is not known."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        return Text() if task.total is None else super().render(task)


class _TimeLeft(ProgressColumn):
    """The time left, or the time so far where it is not known."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        left = self._stage.left()
        return Text(f"{duration(self._stage.elapsed())}" if left is None else f"{duration(left)} left", style="cyan")
