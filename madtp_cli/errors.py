"""The tree of errors that a user can cause; each class has its exit code.

    MadtpError                     1  never raised itself
    ├── UsageError                 2  an option, a variable or a config file is wrong
    ├── InputError                 3  an input cannot be used
    │   ├── CheckpointError        3  ... a checkpoint or its tokenizer
    │   └── DataError              3  ... annotations or images
    ├── BudgetError                4  the budget cannot be reached, or was missed
    ├── CheckError                 5  a check failed: a gate, or an exported file that differs from the model
    ├── OutputError                6  the output exists, or cannot be written
    │   └── ResumeError            6  an interrupted run cannot be resumed
    └── ProcessError               1  another process of the run has ended

A message says what is wrong, where, and what to do, in three lines at most.
"""

from __future__ import annotations

import re
import shlex
import sys

#: Longest word of a message, in characters. Numbers and names of files can have thousands.
LONGEST_WORD = 400


def printable(text: str, keep: str = "") -> str:
    r"""Return a text in which characters that change a terminal, or cannot be encoded, are escaped.

    Names and texts from files pass through this before they are printed.

    Args:
        text: The text.
        keep: Characters that are not escaped, such as line ends.

    >>> print(printable("a\x1b[2Jb\n\ud800 \u202edog é"))
    a\x1b[2Jb\n\ud800 \u202edog é
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii") for char in text
    )


def readable(message: str) -> str:
    r"""Return a message with control characters escaped, except line ends, and with very long words cut.

    >>> print(readable("no file a\x1b[2J\n" + 5000 * "9")[:16]), len(readable(5000 * "9")) <= LONGEST_WORD
    no file a\x1b[2J
    (None, True)
    """
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", _cut, printable(message, keep="\n"))


def _cut(word: re.Match[str]) -> str:
    return f"{word[0][: LONGEST_WORD - 103]}...{word[0][-100:]}"


class MadtpError(Exception):
    """An error whose message the user sees without a traceback, see `readable`."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        """Keep the message as the user can read it."""
        super().__init__(readable(str(message)))


class UsageError(MadtpError):
    """An option, an environment variable or a config file is wrong."""

    exit_code = 2


class InputError(MadtpError):
    """An input of the user cannot be used."""

    exit_code = 3


class CheckpointError(InputError):
    """A checkpoint, or the tokenizer it needs, cannot be used."""


class DataError(InputError):
    """Annotations or images cannot be used."""


class BudgetError(MadtpError):
    """The FLOPs budget cannot be reached, or was missed."""

    exit_code = 4


class CheckError(MadtpError):
    """A check failed: a gate, or an exported file that does not give the outputs of the model."""

    exit_code = 5


class OutputError(MadtpError):
    """The output exists, cannot be written, or cannot be resumed."""

    exit_code = 6


class ResumeError(OutputError):
    """An interrupted run cannot be resumed: it computes something else, or its state is damaged."""


class ProcessError(MadtpError):
    """The run has several processes, and another one has ended."""

    exit_code = 1


def install_command(*packages: str) -> str:
    """Return the command that installs packages into the environment that runs.

    >>> install_command("onnx").endswith(" -m pip install onnx")
    True
    """
    return shlex.join([sys.executable or "python", "-m", "pip", "install", *packages])
