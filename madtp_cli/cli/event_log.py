"""The log of --log-json: one JSON object per line, written while the command runs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, TextIO

from madtp_cli.errors import OutputError
from madtp_cli.reporting.plain_text import encodable, safe_json


class EventLog:
    """Writes the events of a run to a file; without a file it ignores them.

    A run appends to an existing file, so that the log of a run that was interrupted stays. If the file cannot be
    written any more, the run goes on without it, and `end` raises the error.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._path = Path()
        self._failure: OutputError | None = None
        self._started = time.monotonic()
        self._stages: list[tuple[str, int]] = []
        self._figures: dict[str, float] = {}

    def open(self, path: Path, command: str) -> None:
        """Begin the log of a command.

        Raises:
            OutputError: The file cannot be written.
        """
        self._path = path
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise self._cannot_write(error, "Choose another file.") from error
        self.write("run", command=command)
        self._raise_failure()

    def start(self, stage: str, total: int) -> None:
        """Record the start of a stage; 0 stands for an unknown total."""
        self._stages.append((stage, total))
        self.write("start")

    def figures(self, values: dict[str, float]) -> None:
        """Keep the figures of a step for the event of the step."""
        self._figures = values

    def step(self, done: int, text: str) -> None:
        """Record what is done in the current stage."""
        self.write("step", step=done, text=text or None, **self._figures)
        self._figures = {}

    def finish(self) -> None:
        """Record the end of the current stage."""
        self.write("finish")
        if self._stages:
            self._stages.pop()

    def end(self, event: str = "end", **fields: Any) -> None:
        """Record the end of the run, and close the file.

        Raises:
            OutputError: The run is done, but a line could not be written.
        """
        self._stages = []
        self.write(event, **fields)
        if self._file is not None:
            self._file.close()
            self._file = None
        if event == "end":
            self._raise_failure()

    def write(self, event: str, **fields: Any) -> None:
        """Write a line with the time and the current stage."""
        if self._file is None:
            return
        from madtp_cli.reporting.small_reports import LogEvent

        stage, total = self._stages[-1] if self._stages else (None, 0)
        seconds = round(time.monotonic() - self._started, 3)
        content: dict[str, Any] = encodable({"event": event, "stage": stage, **fields})
        line = LogEvent(seconds=seconds, total=total or None, **content)
        try:
            self._file.write(safe_json(line.model_dump_json(exclude_none=True)) + "\n")
        except OSError as error:
            self._failure = self._cannot_write(error, "The log ends there.\nFree some space, or choose another file.")
            with contextlib.suppress(OSError):  # closing tries to write the rest
                self._file.close()
            self._file = None

    def _cannot_write(self, error: OSError, advice: str) -> OutputError:
        return OutputError(f"--log-json: {self._path} cannot be written: {error.strerror or error}.\n{advice}")

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
