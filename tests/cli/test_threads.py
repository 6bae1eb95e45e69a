"""Threads that wait sleep soon, unless the user chose something else; docs/speed.md has what it saves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from madtp_cli.cli.threads import SPINS, wait_without_spinning
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_the_choice_of_the_user_stays(given: dict[str, str], expected: dict[str, str]) -> None:
    """Both variables decide how threads wait."""
    environ = dict(given)
    wait_without_spinning(environ)
    assert environ == expected


def test_the_program_sets_it_before_pytorch_is_loaded() -> None:
    """OpenMP reads its variables when PyTorch loads it."""
    code = (
        "import os, sys\n"
        "from madtp_cli.cli import app\n"
        "app.app = lambda: print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)\n"
        "app.main()"
    )
    environ = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPINS, "False"]
