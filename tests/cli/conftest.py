"""Data and results for the tests of whole commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from madtp_cli.cli.stages import THREAD

#: Few samples, and a budget that the tiny checkpoint can reach.
SMALL = ("--limit", "16", "--batch-size", "8")
BUDGET = ("--gflops-budget", "0.7")


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty working directory, where default outputs are written."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_threads() -> Iterator[None]:
    """Fail if a command leaves the thread of a stage behind, which would print on in the next test."""
    yield
    assert [thread for thread in threading.enumerate() if thread.name == THREAD] == []


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Options with which a command takes about a second."""
    return SMALL


@pytest.fixture(scope="session")
def dataset(madtp: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small NLVR2 data set that `madtp scenes` wrote."""
    folder = tmp_path_factory.mktemp("data") / "nlvr2"
    assert madtp("scenes", folder, "--train", 16, "--val", 16, "--test", 16, "-q").exit_code == 0
    return folder


@pytest.fixture(scope="session")
def compressed(madtp: Any, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder that `madtp compress` wrote, and the JSON document that it printed."""
    folder = tmp_path_factory.mktemp("results") / "pruned"
    done = madtp("compress", checkpoint, *BUDGET, *SMALL, "--steps", 2, "--json", "-o", folder)
    assert done.exit_code == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[str]]:
    """Start the command line in a separate process, with real signals and streams."""
    # A test run in the background ignores SIGINT, and its child processes inherit that.
    code = (
        "import signal, madtp_cli.cli.app as app; signal.signal(signal.SIGINT, signal.default_int_handler); app.main()"
    )

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "CI"} | environment,
        )

    return start


@pytest.fixture
def interrupted(process: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Send a signal when a line of stderr starts with `beginning`; return exit code, stdout and the rest of stderr."""

    def run(number: signal.Signals, beginning: str, *command: object) -> tuple[int, str, str]:
        running = process(*command)
        assert running.stderr is not None
        assert any(line.startswith(beginning) for line in running.stderr)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
        return running.returncode, out, err

    return run
