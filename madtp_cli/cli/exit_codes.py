"""Exit codes: every failure becomes a message on stderr and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from madtp_cli import processes
from madtp_cli.cli import json_errors
from madtp_cli.cli.console import Terminal
from madtp_cli.cli.quiet import quiet_libraries
from madtp_cli.errors import InputError, MadtpError, ProcessError

#: Number of -v options that shows the traceback of an error.
TRACEBACKS = 2
#: Of several processes that fail in the same way only the main one should print the error; others wait this long.
MAIN_FIRST_SECONDS = 2.0
#: The last lines of `madtp --help`. The classes in `madtp_cli.errors` have the codes.
DESCRIPTION = (
    "Exit codes: 0 success; 1 bug in madtp, or another process of the run ended; 2 wrong option or config file; "
    "3 input cannot be used; 4 budget unreachable or missed; 5 a check failed; "
    "6 output exists, cannot be written or cannot be resumed; "
    "130 interrupted (Ctrl-C); 143 terminated (SIGTERM); 141 output pipe closed."
)


#: Message for a torchvision that cannot be imported; transformers imports it if it is installed.
TORCHVISION = (
    "The installed torchvision does not fit the installed torch: it cannot be imported.\n"
    "Install the torchvision of your torch version, or remove it: pip uninstall torchvision. madtp does not need it."
)


class _Terminated(BaseException):
    """Raised on SIGTERM, so that the clean-up code of all callers runs and no partial output stays."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


class CommandGroup(TyperGroup):
    """The commands of madtp. It turns every failure into a message on stderr and an exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run the command line and exit."""
        words = args[0] if args else extra.get("args")
        words = sys.argv[1:] if words is None else words
        terminal = Terminal(command_line=["madtp", *words])
        terminal.json_errors = "--json" in words  # also if the other words are wrong
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False, "obj": terminal})
        except typer.TyperException as error:  # a wrong option or argument; without a message where help was printed
            code = error.exit_code
            if message := error.format_message():
                context = getattr(error, "ctx", None)
                message = f"{message}\nSee {context.command_path if context else 'madtp'} --help."
                _print_error(terminal, message, code, context.info_name if context else None)
        sys.exit(code)

    def invoke(self, ctx: Any) -> None:
        """Run a command and exit with the code of its error, if there is one."""
        before = signal.signal(signal.SIGTERM, _terminate)
        try:
            with quiet_libraries():
                super().invoke(ctx)
            sys.stdout.flush()
            ctx.obj.log.end()
        except MadtpError as error:
            _fail(ctx.obj, str(error), error.exit_code, error)
        except KeyboardInterrupt as error:
            _fail(ctx.obj, "Interrupted.", 130, error)
        except _Terminated as error:
            _fail(ctx.obj, "Terminated by SIGTERM.", 143, error)
        except BrokenPipeError:  # as in `madtp ... | head`: no message, and the exit code that shells use for it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except Exception as error:  # noqa: BLE001  the last resort: the user sees a sentence, not a traceback
            if known := _explained(error):
                _fail(ctx.obj, str(known), known.exit_code, known)
            _fail(ctx.obj, _bug(error), 1, error)
        finally:
            signal.signal(signal.SIGTERM, before)
            ctx.obj.close()


def _fail(terminal: Terminal, message: str, code: int, error: BaseException) -> NoReturn:
    """Print the message and the notes of the error, with -vv also the traceback, and exit."""
    message = "\n".join([message, *getattr(error, "__notes__", ())])
    if not processes.is_main():
        # The launcher ends this process if the main one failed; then that one has said why.
        time.sleep(MAIN_FIRST_SECONDS)
        if not isinstance(error, ProcessError):  # that one names the process itself
            message = f"Process {processes.rank()} of {processes.launched()}: {message}"
    _print_error(terminal, message, code, terminal.command, error)
    raise typer.Exit(code) from None


def _print_error(
    terminal: Terminal, message: str, code: int, command: str | None, error: BaseException | None = None
) -> None:
    """Print an error as a sentence or, with --json, as a JSON object; write it to the log."""
    terminal.log.end("error", text=message, code=code)
    if terminal.json_errors:
        terminal.fail_as_json(json_errors.line(message, code, command, error))
    else:
        terminal.fail(message, error if terminal.verbosity >= TRACEBACKS else None)


def _explained(error: Exception) -> MadtpError | None:
    """Return an error of a library as the error that a user can understand; None if it is a bug."""
    known: MadtpError
    if processes.is_lost(error):
        known = processes.lost(error)
    elif _is_of_torchvision(error):
        known = InputError(TORCHVISION)
    else:
        return None
    known.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        known.add_note(note)
    return known


def _is_of_torchvision(error: BaseException | None) -> bool:
    """Return whether an error comes from a torchvision that was built for another torch: its import fails."""
    while error is not None:
        if "torchvision" in str(error):
            return True
        trace = error.__traceback__
        while trace is not None:
            if f"{os.sep}torchvision{os.sep}" in trace.tb_frame.f_code.co_filename:
                return True
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return False


def _bug(error: Exception) -> str:
    reason = str(error).strip().split("\n")[0]
    return (
        f"This is a bug in madtp: {type(error).__name__}: {reason}\n"
        "Run the command again with -vv to see the traceback, and report it."
    )
