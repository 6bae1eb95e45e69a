"""How a command ends: every way to fail becomes a message on stderr and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from madtp_cli.cli.console import Terminal
from madtp_cli.errors import MadtpError

#: -vv shows where an error came from.
TRACEBACKS = 2


class _Terminated(BaseException):
    """SIGTERM arrived: unwind, so that nothing half-written stays."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


class Commands(TyperGroup):
    """Turns every way to fail into a message on stderr and an exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        terminal = Terminal()
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False, "obj": terminal})
        except typer.TyperException as error:  # an option or argument that is wrong; empty where help was printed
            code = error.exit_code
            if message := error.format_message():
                context = getattr(error, "ctx", None)
                terminal.fail(f"{message}\nSee {context.command_path if context else 'madtp'} --help.")
        sys.exit(code)

    def invoke(self, ctx: Any) -> None:
        """Run the command that was asked for."""
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except MadtpError as error:
            _fail(ctx.obj, str(error), error.exit_code, error)
        except KeyboardInterrupt:
            _fail(ctx.obj, "Interrupted; nothing was saved.", 130)
        except _Terminated:
            _fail(ctx.obj, "Terminated; nothing was saved.", 143)
        except BrokenPipeError:  # as `madtp ... | head` does; silent, with the shell's code for it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:  # noqa: BLE001  the last resort: a user gets a sentence, not a traceback
            _fail(ctx.obj, _bug(error), 1, error)
        finally:
            signal.signal(signal.SIGTERM, before)


def _fail(terminal: Terminal, message: str, code: int, error: Exception | None = None) -> NoReturn:
    """Say what went wrong, with -vv how it came about, and exit."""
    terminal.fail(message, error if terminal.verbosity >= TRACEBACKS else None)
    raise typer.Exit(code) from None


def _bug(error: Exception) -> str:
    reason = str(error).strip().split("\n")[0]
    return f"A bug in madtp: {type(error).__name__}: {reason}\nRun again with -vv for the traceback, and report it."
