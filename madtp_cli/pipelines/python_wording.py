"""Errors of the functions in `madtp_cli` name keyword arguments where those of the commands name options."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from madtp_cli.errors import MadtpError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: What follows an option and is its value: a placeholder, a number, widths of towers, a text in quotes, or a name.
VALUE = r'[A-Z]+\b|\d[\w.%]*(?<!\.)|[a-z]+=[\w=,]+|"[^"]*"|[a-z][\w-]*'
OPTION = re.compile(rf"(?<![\w/-])--([a-z][a-z-]+)(?:[ =]({VALUE}))?")
#: Options without a keyword argument of their name.
COMMAND_LINE_ONLY = {"json", "dry-run", "config", "verify"}
#: Keyword arguments that take a list of what an option takes once.
LISTS = {"image": "images"}
#: A command for a terminal, to the end of its line.
COMMAND = re.compile(r"\bmadtp [a-z]+ .*")


def with_python_names(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function whose errors, with their notes, name keyword arguments."""

    @functools.wraps(function)
    def call(*arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        try:
            return function(*arguments, **keywords)
        except BaseException as error:
            if isinstance(error, MadtpError):
                error.args = (in_python(str(error)),)
            if notes := getattr(error, "__notes__", None):
                notes[:] = map(in_python, notes)
            raise

    return call


def in_python(message: str) -> str:
    """Return a message with keyword arguments instead of options; commands for a terminal stay.

    >>> print(in_python("Choose another path, or replace it with --overwrite."))
    Choose another path, or replace it with `overwrite=True`.
    >>> print(in_python("Give --image-root the folder, --tokenizer DIR, --dtype float32 or --batch-size 4."))
    Give `image_root` the folder, `tokenizer=DIR`, `dtype="float32"` or `batch_size=4`.
    """
    return "\n".join(map(_line_in_python, message.split("\n")))


def _line_in_python(line: str) -> str:
    command = COMMAND.search(line)
    end = command.start() if command else len(line)
    return OPTION.sub(_keyword, line[:end]) + line[end:]


def _keyword(option: re.Match[str]) -> str:
    """Return the keyword argument for an option; a word after it that is no value of it follows unchanged."""
    from madtp_cli.config import choices
    from madtp_cli.config.sources import is_switch

    if option[1] in COMMAND_LINE_ONLY:
        return option[0]
    name = option[1].replace("-", "_")
    value, after = option[2] or "", option[0][2 + len(name) :]
    if is_switch(name):
        return f"`{name}=True`{after}"
    if value in choices.of(name) or "=" in value:
        return f'`{name}="{value}"`'
    name = LISTS.get(name, name)
    return f"`{name}={value}`" if value and not value[0].islower() else f"`{name}`{after}"
