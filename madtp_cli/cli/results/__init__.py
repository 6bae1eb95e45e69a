"""What each command prints on stdout for people: one file per report, each with a function `show`."""

from madtp_cli.cli.results import (
    check,
    compare,
    compress,
    data,
    doctor,
    evaluate,
    export,
    inspect,
    plan,
    profile,
    rerun,
    scenes,
    show,
)

__all__ = [
    "check",
    "compare",
    "compress",
    "data",
    "doctor",
    "evaluate",
    "export",
    "inspect",
    "plan",
    "profile",
    "rerun",
    "scenes",
    "show",
]
