"""What every command does with its context: read the settings, find the terminal, print the result."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console

from madtp_cli import processes
from madtp_cli.cli import early_checks, gate_results
from madtp_cli.cli.console import Terminal
from madtp_cli.config import RunSettings, resolve
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.plain_text import safe_json

#: Shown below the options of `madtp --help`.
SETTINGS = (
    "A setting can be an option (--batch-size 8), an environment variable (MADTP_BATCH_SIZE=8) or a line in the file "
    "of --config (batch_size: 8). The option has priority, then the variable, then the file."
)


def examples(*commands: str) -> str:
    """Write the last lines of a command's `--help`."""
    return "\n\n".join(["Examples:", *commands])


def terminal(ctx: typer.Context) -> Terminal:
    """Return the terminal with the verbosity of the command's options."""
    found: Terminal = ctx.obj
    found.command = ctx.info_name
    if (log := ctx.params.get("log_json")) and processes.is_main():
        found.log.open(log, str(ctx.info_name))
    found.verbosity = -1 if ctx.params.get("quiet") or not processes.is_main() else ctx.params["verbose"]
    return found


def settings(ctx: typer.Context, kind: type[RunSettings], early_check: bool = True) -> tuple[Any, Terminal]:
    """Return the settings of a command, of the class `kind`, and the terminal.

    With `early_check` the checkpoint and the paths of the settings are checked before torch is imported.
    """
    output = terminal(ctx)
    flags = {name: value for name, value in ctx.params.items() if name in kind.model_fields}
    resolved = resolve(flags, ctx.params.get("config"), os.environ, kind)
    resolved.command_line.extend(output.command_line)
    for note in resolved.notes:
        output.message(note)
    if early_check:
        early_checks.check_run(ctx.params["checkpoint"], resolved)
        import_torch(output)
    return resolved, output


def import_torch(progress: ProgressReporter, expect: Callable[[], None] = lambda: None) -> None:
    """Show a stage while PyTorch and transformers are imported, which takes seconds.

    Args:
        progress: Receives the stage.
        expect: Tells `progress`, within the stage, how long it and the stages after it take.
    """
    if "madtp_cli.evaluation.session" in sys.modules:
        return
    progress.start("Loading PyTorch", 0)
    expect()
    importlib.import_module("madtp_cli.evaluation.session")
    progress.finish()


def print_report(ctx: typer.Context, report: BaseModel, show: Callable[[Any, Console], None]) -> None:
    """Print a report in the main process: with --json the document, otherwise what `show` makes of it; then its gates.

    Raises:
        CheckError: A gate failed.
    """
    if not processes.is_main():
        return
    if ctx.params["as_json"]:
        sys.stdout.write(safe_json(report.model_dump_json(indent=2)) + "\n")
    else:
        show(report, ctx.obj.out)
    gate_results.finish(ctx, report)


def print_document(
    ctx: typer.Context, content: Mapping[str, Any], show: Callable[[Mapping[str, Any], Console], None]
) -> None:
    """Print a result that has no report class in the main process."""
    if not processes.is_main():
        return
    if ctx.params["as_json"]:
        document = {"schema_version": 1, "command": ctx.info_name, **content}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        show(content, ctx.obj.out)
