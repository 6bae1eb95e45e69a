"""The script that kills runs works, so that its table can be made again."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.paths import EXAMPLES, ROOT


def test_a_killed_run_is_resumed_and_compared() -> None:
    """One kill; the page docs/resuming.md has the table of many."""
    command = [sys.executable, str(EXAMPLES / "kill_test.py"), "--kills", "1"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| 1 | SIGKILL | load |" in done.stdout
    assert "1 of 1 kills ended with the same weights and the same report." in done.stdout
