"""Send the figures of each step to a tracker of experiments: tensorboard, wandb or trackio, through accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from madtp_cli import processes
from madtp_cli.config import CompressSettings
from madtp_cli.errors import UsageError, install_command
from madtp_cli.progress import PlannedStage, ProgressReporter

#: Folder of the trackers that write files.
LOGS = "runs"
#: Other packages that can write for a tracker.
ALSO = {"tensorboard": ["tensorboardX"]}


@contextlib.contextmanager
def tracked(progress: ProgressReporter, settings: CompressSettings, name: str) -> Iterator[ProgressReporter]:
    """Yield a reporter that also sends figures to the tracker of the settings; the same reporter without one.

    Args:
        progress: Receives everything.
        settings: Names the tracker; all settings are recorded with the run.
        name: Name of the run.

    Raises:
        UsageError: The tracker or the library accelerate is not installed.
    """
    tracker = settings.tracker
    require_installed(tracker)
    if tracker is None or not processes.is_main():
        yield progress
        return
    connection = _connect(tracker, settings, name)
    try:
        yield TrackedProgress(progress, connection)
    finally:
        connection.finish()


def require_installed(tracker: str | None) -> None:
    """Check that the packages of a tracker are installed.

    Raises:
        UsageError: One is not.
    """
    if tracker is None:
        return
    packages = [["accelerate"], [tracker, *ALSO.get(tracker, [])]]
    missing = [names[0] for names in packages if not any(map(find_spec, names))]
    if missing:
        raise UsageError(
            f"--tracker {tracker} needs {' and '.join(missing)}, which is not installed.\n"
            f"Install it: {install_command(*missing)}"
        )


def _connect(tracker: str, settings: CompressSettings, name: str) -> Any:
    """Return accelerate's connection to a tracker, which knows the settings."""
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=settings.device == "cpu")  # trackers ask it whether this is the main process
    kind = LOGGER_TYPE_TO_CLASS[tracker]
    connection = kind(name, logging_dir=LOGS) if kind.requires_logging_directory else kind(name)
    connection.start()
    values = settings.model_dump(mode="json")
    connection.store_init_configuration({key: value for key, value in values.items() if isinstance(value, str | int)})
    return connection


class TrackedProgress(ProgressReporter):
    """Passes everything on to another reporter, and the figures of each step to a tracker."""

    def __init__(self, progress: ProgressReporter, tracker: Any) -> None:
        self._progress, self._tracker = progress, tracker
        self._figures: dict[str, float] = {}

    def message(self, text: str) -> None:
        """Pass a sentence on."""
        self._progress.message(text)

    def plan(self, stages: Sequence[PlannedStage]) -> None:
        """Pass the plan on."""
        self._progress.plan(stages)

    def start(self, stage: str, total: int) -> None:
        """Pass the start of a stage on."""
        self._progress.start(stage, total)

    def advance(self, done: int, detail: str = "") -> None:
        """Pass the progress on, and send the figures of the step."""
        self._progress.advance(done, detail)
        if self._figures:
            self._tracker.log(self._figures, step=done)
            self._figures = {}

    def figures(self, **values: float) -> None:
        """Keep the figures for the next `advance`, and pass them on."""
        self._figures = dict(values)
        self._progress.figures(**values)

    def expect(self, seconds: float) -> None:
        """Pass the time left on."""
        self._progress.expect(seconds)

    def finish(self) -> None:
        """Pass the end of a stage on."""
        self._progress.finish()
