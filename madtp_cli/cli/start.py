"""What a newcomer types first: `madtp` alone, and `madtp help`."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import typer

from madtp_cli.cli import context
from madtp_cli.config import choices
from madtp_cli.config.choices import did_you_mean
from madtp_cli.errors import UsageError

FIRST_STEPS = """madtp prunes tokens of vision-language models (BLIP, BLIP-2, CLIP, SigLIP,
ViLT), so that they meet a FLOPs budget.

  madtp inspect blip.pth                        show what a checkpoint is
  madtp compress blip.pth --gflops-budget 0.5   halve its GFLOPs, in blip-madtp/
  madtp eval blip-madtp --data nlvr2/           measure its quality on your data

madtp help lists all commands, and madtp help COMMAND the options of one.
"""


def show_first_steps() -> None:
    """Print the three commands that a newcomer needs."""
    sys.stdout.write(FIRST_STEPS)


def list_architectures(ctx: typer.Context) -> NoReturn:
    """Print the names that `madtp profile --arch` accepts, one per line, and end the command."""
    from madtp_cli.models import architectures

    content = {"architectures": list(architectures())}
    context.print_document(ctx, content, lambda found, out: out.print("\n".join(found["architectures"])))
    raise typer.Exit


def show_help(ctx: typer.Context, command: str | None) -> None:
    """Print the help of a command, or of madtp.

    Raises:
        UsageError: There is no such command.
    """
    parent: Any = ctx.parent
    commands = parent.command.commands
    if command is None:
        sys.stdout.write(parent.get_help().rstrip() + "\n")
    elif command not in commands:
        known = ", ".join(commands)
        raise UsageError(f"There is no command {command!r}.{did_you_mean(command, commands)}\nThere are {known}.")
    else:
        found = commands[command]
        with type(ctx)(found, info_name=command, parent=parent) as inner:
            sys.stdout.write(found.get_help(inner).rstrip() + "\n")


def show_schema(command: str | None) -> None:
    """Print the JSON schema of the documents of a command, or of all commands.

    Raises:
        UsageError: The command has no document.
    """
    from madtp_cli.reporting import json_schemas

    if command is not None:
        choices.require("madtp schema", command, json_schemas.names())
    sys.stdout.write(json.dumps(json_schemas.json_schema(command), indent=2) + "\n")
