"""Errors of a command with --json: one JSON object on one line of stderr."""

from __future__ import annotations

from madtp_cli.errors import MadtpError, UsageError, readable
from madtp_cli.reporting.small_reports import ErrorReport

#: Exit codes of runs that a signal ended, and what they are called.
SIGNALS = {130: "interrupted", 143: "terminated"}


def line(message: str, code: int, command: str | None, error: BaseException | None) -> str:
    r"""Return the object: the last line of a message is its hint.

    >>> line("There is no file x.\nCheck the path.", 3, "eval", None)[-47:]
    '"There is no file x.","hint":"Check the path."}'
    """
    wrong, _, hint = readable(message).rpartition("\n")
    report = ErrorReport(
        command=command,
        code=code,
        kind=SIGNALS.get(code) or _kind(error),
        message=wrong or hint,
        hint=hint if wrong else None,
    )
    return report.model_dump_json()


def _kind(error: BaseException | None) -> str:
    """Return the class of an error; a wrong option has none, and what is no MadtpError is a bug."""
    if error is None:
        return UsageError.__name__
    return type(error).__name__ if isinstance(error, MadtpError) else "bug"
