"""Everything that can go wrong for a user, as a tree; each class knows its exit code.

    MadtpError                     1  a bug unless a subclass says better
    ├── UsageError                 2  a flag, a variable or a config file is wrong
    ├── InputError                 3  something given cannot be used
    │   ├── CheckpointError        3  ... a checkpoint or its tokenizer
    │   └── DataError              3  ... annotations or images
    ├── BudgetError                4  the budget cannot be reached, or was missed
    ├── CheckError                 5  an exported file does not do what the model does
    └── OutputError                6  the output exists or cannot be written

A message says what is wrong, where, and what to do, in three lines at most.
"""

from __future__ import annotations


class MadtpError(Exception):
    """Displayed to the user without a traceback."""

    exit_code = 1


class UsageError(MadtpError):
    """A flag, an environment variable or a configuration file is wrong."""

    exit_code = 2


class InputError(MadtpError):
    """Something the user gave cannot be used."""

    exit_code = 3


class CheckpointError(InputError):
    """A checkpoint, or the tokenizer it needs, cannot be used."""


class DataError(InputError):
    """Annotations or images cannot be used."""


class BudgetError(MadtpError):
    """The FLOPs budget cannot be reached, or was missed."""

    exit_code = 4


class CheckError(MadtpError):
    """An exported file does not give the model's answers."""

    exit_code = 5


class OutputError(MadtpError):
    """The output exists, or cannot be written."""

    exit_code = 6
