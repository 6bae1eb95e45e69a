"""Signals that wait until a training step is done: Ctrl-C (SIGINT) and SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from madtp_cli import processes

#: The signals that ask a run to stop.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A block in which the first signal is recorded, so that the current step can end; the second one stops at once.

    A signal then does what it does outside the block: it raises KeyboardInterrupt, or whatever its handler does. This
    happens at the latest at the end of the block. Only the main thread can change signal handlers; in another thread
    the block has no effect.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        """Take a function that tells the user that the run will stop; it runs in a thread of its own."""
        self.received: int | None = None
        self._notify, self._handlers = notify, dict[int, Any]()

    def __enter__(self) -> StopSignals:
        """Record signals from now on."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        """Restore the handlers from before, and deliver a signal that still waits."""
        self._restore()
        if self.received is not None and error[:1] in ((), (None,)):
            self.deliver(self.received)

    def agreed(self) -> int | None:
        """Return a signal that a process of the run received, the same in all processes; None if there is none."""
        return next((number for number in processes.gathered([self.received]) if number is not None), None)

    def deliver(self, number: int) -> None:
        """Let a signal do what it does outside the block."""
        self._restore()
        self.received = None
        signal.raise_signal(number)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Let signals stop at once in this inner block, also one that waits already."""
        self.__exit__()
        yield
        self.__enter__()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Record a signal. It can arrive while the main thread writes, so another thread writes the notice."""
        if self.received is not None:
            self.deliver(number)
            return
        self.received = number
        threading.Thread(target=self._notify, daemon=True).start()
