"""The terminal: progress, messages and errors on stderr; results on stdout."""

from __future__ import annotations

import os
import sys
import time
import traceback
from typing import Any, NoReturn, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from madtp_cli.cli.formatting import duration
from madtp_cli.errors import printable
from madtp_cli.progress import ProgressReporter

#: Seconds between progress lines where stderr is not a terminal.
PLAIN_EVERY = 15.0
#: Wide enough for every table. A pipe has no width, so lines are not wrapped there.
PIPE_WIDTH = 10_000


class _Console(Console):
    """A console that prints text as it is, and wraps lines only on a terminal."""

    def __init__(self, stream: TextIO, *, stderr: bool = False) -> None:
        interactive = stream.isatty() and "CI" not in os.environ
        plain: dict[str, Any] = dict(highlight=False, markup=False, emoji=False, soft_wrap=not stream.isatty())
        super().__init__(
            stderr=stderr, force_interactive=interactive, width=None if stream.isatty() else PIPE_WIDTH, **plain
        )

    def on_broken_pipe(self) -> NoReturn:
        """Let the caller of the command decide the exit code."""
        raise BrokenPipeError


class Terminal(ProgressReporter):
    """The two output streams, and the progress reporter of a run.

    `verbosity` is the number of `-v` options, -1 with `--quiet`. `out` is the console for results.
    """

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self.out, self._err = _Console(sys.stdout), _Console(sys.stderr, stderr=True)
        self._bar: Progress | None = None
        self._stage, self._total, self._printed, self._started = "", 0, 0.0, 0.0
        self._depth = 0

    def message(self, text: str) -> None:
        """Print a message on stderr, unless the terminal is quiet."""
        if self.verbosity >= 0:
            self._err.print(
                Text(printable(text, keep="\n"), style="dim")
            )  # a style of print would dim the bar below it

    def start(self, stage: str, total: int) -> None:
        """Start a progress bar on a terminal, plain progress lines elsewhere. A stage within a stage shows nothing."""
        self._depth += 1
        if self._depth > 1 or self.verbosity < 0:
            return
        self._stage, self._total, self._printed, self._started = stage, total, time.monotonic(), time.monotonic()
        if self._err.is_interactive and self._err.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(12), MofNCompleteColumn(), TimeRemainingColumn()]
            self._bar = Progress(
                *columns, TextColumn("{task.fields[detail]}", markup=False), console=self._err, transient=True
            )
            self._bar.add_task(stage, total=total or None, detail="")
            self._bar.start()

    def advance(self, done: int, detail: str = "") -> None:
        """Show how many samples or steps of the stage are done."""
        if self._depth > 1:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, detail=detail)
        elif self._stage and time.monotonic() - self._printed > PLAIN_EVERY:
            self._printed = time.monotonic()
            self._err.print(f"{self._stage}: {self._progress(done)}{detail}")

    def _progress(self, done: int) -> str:
        if not self._total or not done:
            return ""
        left = (time.monotonic() - self._started) / done * (self._total - done)
        return f"{done:,} of {self._total:,}, about {duration(left)} left. "

    def finish(self) -> None:
        """Remove the bar and print how long the stage took."""
        self._depth -= 1
        if self._depth or not self._stage:
            return
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self.message(f"{self._stage}: done in {duration(time.monotonic() - self._started)}")
        self._stage = ""

    def fail(self, message: str, error: BaseException | None = None) -> None:
        """Print the error that ends the command on stderr, after the traceback of `error` if it is given."""
        if self._bar is not None:
            self._bar.stop()
        if error is not None:
            self._err.print("".join(traceback.format_exception(error)), soft_wrap=True, end="")
        self._err.print(f"Error: {message}", style="red", soft_wrap=True)
