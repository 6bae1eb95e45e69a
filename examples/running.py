"""Run the main function of an example as a command: its help has all defaults, and errors are messages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from madtp_cli.errors import MadtpError


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line ends of the description, and adds its default to the help of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, value = action.help or "", action.default
        if value in (None, False, argparse.SUPPRESS) or "(default" in text:
            return text
        return f"{text} (default: {' '.join(map(str, value)) if isinstance(value, list) else value})"


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call a main function and end the process with its exit code, or with that of its error.

    Args:
        main: Returns the exit code; None is 0.
    """
    try:
        sys.exit(main())
    except MadtpError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
