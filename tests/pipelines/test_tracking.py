"""`--tracker` sends the figures of each step to a program that records experiments."""

from __future__ import annotations

import pytest

from madtp_cli.config import CompressSettings, resolve
from madtp_cli.errors import UsageError
from madtp_cli.pipelines import tracking
from madtp_cli.progress import ProgressReporter


def settings(tracker: str | None) -> CompressSettings:
    """Return settings of a run with a tracker."""
    return resolve({"gflops_budget": "0.5", "tracker": tracker, "device": "cpu"}, None, {}, CompressSettings)


class Recorder(ProgressReporter):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received: list[object] = []

    def figures(self, **values: float) -> None:
        """Keep the figures."""
        self.received.append(values)

    def advance(self, done: int, detail: str = "") -> None:
        """Keep the step."""
        self.received.append((done, detail))


def test_each_step_is_recorded_once_and_passed_on(tmp_path, monkeypatch) -> None:
    """The event file has the names of the figures; progress without figures is not recorded."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    with tracking.tracked(recorder, settings("tensorboard"), "blip-half") as progress:
        progress.figures(loss=0.5, gflops=0.25)
        progress.advance(1, "loss 0.5")
        progress.advance(2)
    assert recorder.received == [{"loss": 0.5, "gflops": 0.25}, (1, "loss 0.5"), (2, "")]
    events = b"".join(file.read_bytes() for file in (tmp_path / "runs" / "blip-half").glob("events*"))
    assert events.count(b"gflops") == 1
    assert b"loss" in events


def test_no_tracker_changes_nothing() -> None:
    """It is off by default."""
    reporter = ProgressReporter()
    with tracking.tracked(reporter, settings(None), "name") as progress:
        assert progress is reporter


def test_a_missing_tracker_is_an_error_with_the_command_that_installs_it(monkeypatch) -> None:
    """Before the run, not after it."""
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "wandb" else object())
    with (
        pytest.raises(UsageError, match=r"needs wandb, which is not installed\.\n.*pip install wandb"),
        tracking.tracked(ProgressReporter(), settings("wandb"), "name"),
    ):
        pass
