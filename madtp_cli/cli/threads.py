"""A speed setting of OpenMP: threads that wait for each other do not keep a CPU core busy."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

#: How often a thread looks whether the others have finished before it sleeps. GNU's OpenMP, which PyTorch uses, looks
#: for milliseconds by default.
SPINS = "10000"
#: Variables with which users choose this themselves.
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_without_spinning(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads sleep soon. It has an effect only before PyTorch is imported.

    If another program uses one of the cores, a thread that waits on the other core by spinning keeps the thread that it
    waits for from running there. docs/speed.md has measured times. On free cores the time stays the same.
    """
    if not any(name in environ for name in CHOSEN):
        environ["GOMP_SPINCOUNT"] = SPINS
