"""Whoever wants to hear how a run goes on: the terminal, a notebook, nobody."""

from __future__ import annotations


class ProgressReporter:
    """Hears how a run goes on; this one does nothing."""

    def say(self, text: str) -> None:
        """Something the user should know."""

    def stage(self, title: str, total: int) -> None:
        """A stage begins that takes `total` samples or steps."""

    def advance(self, done: int, detail: str = "") -> None:
        """So many of them are done."""

    def done(self) -> None:
        """The stage is over."""
