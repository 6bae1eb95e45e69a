"""Data and results that the tests of whole commands share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Few samples, and a budget that so small a model can have.
SMALL = ("--limit", "16", "--batch-size", "8")
BUDGET = ("--gflops-budget", "0.7")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default outputs land in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """Options that make a command take a second."""
    return SMALL


@pytest.fixture(scope="session")
def dataset(madtp: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `madtp scenes` writes."""
    folder = tmp_path_factory.mktemp("data") / "nlvr2"
    assert madtp("scenes", folder, "--train", 16, "--val", 16, "--test", 16, "-q").exit_code == 0
    return folder


@pytest.fixture(scope="session")
def compressed(madtp: Any, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder that `madtp compress` wrote, and the document it printed."""
    folder = tmp_path_factory.mktemp("results") / "pruned"
    done = madtp("compress", checkpoint, *BUDGET, *SMALL, "--steps", 2, "--json", "-o", folder)
    assert done.exit_code == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[str]]:
    """The command line in a process of its own, where signals and streams are real."""
    # A test run in the background ignores Ctrl-C, which its children would inherit.
    code = (
        "import signal, madtp_cli.cli.app as app; signal.signal(signal.SIGINT, signal.default_int_handler); app.main()"
    )

    def start(*words: object, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "CI"} | environment,
        )

    return start


@pytest.fixture
def interrupted(process: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Send a signal when a line of stderr begins with these words; give exit code, stdout and the rest of stderr."""

    def run(number: signal.Signals, words: str, *command: object) -> tuple[int, str, str]:
        running = process(*command)
        assert running.stderr is not None
        assert any(line.startswith(words) for line in running.stderr)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
        return running.returncode, out, err

    return run
