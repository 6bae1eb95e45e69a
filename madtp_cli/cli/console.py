"""The terminal: progress, messages and errors on stderr; results on stdout."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from rich.console import Console
from rich.text import Text

from madtp_cli.cli.event_log import EventLog
from madtp_cli.cli.formatting import duration
from madtp_cli.cli.stages import Stage, StageBar, StageLines
from madtp_cli.errors import printable, readable
from madtp_cli.progress import ProgressReporter

#: Wide enough for every table. A pipe has no width, so lines are not wrapped there.
PIPE_WIDTH = 10_000


class _Console(Console):
    """A console that escapes control characters, prints other text as it is, and wraps lines only on a terminal."""

    def __init__(self, stream: TextIO, *, stderr: bool = False) -> None:
        interactive = stream.isatty() and "CI" not in os.environ
        plain: dict[str, Any] = dict(highlight=False, markup=False, emoji=False, soft_wrap=not stream.isatty())
        super().__init__(
            stderr=stderr, force_interactive=interactive, width=None if stream.isatty() else PIPE_WIDTH, **plain
        )

    def render_str(self, text: str, **settings: Any) -> Text:
        """Escape the control characters of a text, in tables too: names and texts come from files."""
        return super().render_str(printable(text, keep="\n"), **settings)

    def on_broken_pipe(self) -> NoReturn:
        """Let the caller of the command decide the exit code."""
        raise BrokenPipeError


class Terminal(ProgressReporter):
    """The two output streams, and the progress reporter of a run.

    `verbosity` is the number of `-v` options, -1 with `--quiet`. `command_line` has the words that the user typed.
    `out` is the console for results. With `json_errors`, errors are JSON objects; `command` is the command that runs.
    """

    def __init__(self, verbosity: int = 0, command_line: Sequence[str] = ()) -> None:
        self.verbosity, self.command_line = verbosity, list(command_line)
        self.out, self._err = _Console(sys.stdout), _Console(sys.stderr, stderr=True)
        self._bar: StageBar | None = None
        self._lines: StageLines | None = None
        self._stage = Stage("", 0)
        self._depth = 0
        self.log = EventLog()
        self.json_errors = False
        self.command: str | None = None

    def message(self, text: str) -> None:
        """Print a message on stderr, unless the terminal is quiet."""
        self.log.write("message", text=text)
        if self.verbosity >= 0:
            self._err.print(
                Text(printable(text, keep="\n"), style="dim")
            )  # a style of print would dim the bar below it

    def start(self, stage: str, total: int) -> None:
        """Start a progress bar on a terminal, plain progress lines elsewhere. A stage within a stage is its detail."""
        self._depth += 1
        self.log.start(stage, total)
        if self.verbosity < 0:
            return
        if self._depth > 1:
            self._show(self._stage.done, stage)
            return
        self._stage = Stage(stage, total)
        if self._err.is_interactive and self._err.is_terminal and not self._err.is_dumb_terminal:
            self._bar = StageBar(self._stage, self._err)
        else:
            self._lines = StageLines(self._stage, self._err.print)

    def advance(self, done: int, detail: str = "") -> None:
        """Show how many samples or steps of the stage are done."""
        self.log.step(done, detail)
        if self._depth == 1:
            self._show(done, detail)

    def figures(self, **values: float) -> None:
        """Keep the figures of the next state for the log."""
        self.log.figures(values)

    def expect(self, seconds: float) -> None:
        """Show this as the time left, instead of what the speed of the stage gives."""
        if self._depth == 1:
            self._stage.expect(seconds)

    def _show(self, done: int, detail: str) -> None:
        self._stage.advance(done, detail)
        for shown in (self._bar, self._lines):
            if shown is not None:
                shown.update()

    def finish(self) -> None:
        """Remove the bar and print how long the stage took."""
        self._depth -= 1
        self.log.finish()
        if self._depth or not self._stage.title:
            return
        self._stop()
        self.message(f"{self._stage.title}: done in {duration(self._stage.elapsed())}")
        self._stage = Stage("", 0)

    def close(self) -> None:
        """Stop the bar or the lines of a stage that did not finish; their thread would print on."""
        self._stop()

    def _stop(self) -> None:
        for shown in (self._bar, self._lines):
            if shown is not None:
                shown.stop()
        self._bar = self._lines = None

    def fail_as_json(self, line: str) -> None:
        """Print the object that describes the error which ends the command."""
        self._stop()
        self._err.print(line, soft_wrap=True)

    def fail(self, message: str, error: BaseException | None = None) -> None:
        """Print the error that ends the command on stderr, after the traceback of `error` if it is given."""
        self._stop()
        if error is not None:
            self._err.print("".join(traceback.format_exception(error)), soft_wrap=True, end="")
        self._err.print("Error: " + readable(message), style="red", soft_wrap=True)
