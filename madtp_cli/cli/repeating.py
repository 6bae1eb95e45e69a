"""The commands that repeat a run and describe the environment: `madtp rerun` and `madtp doctor`."""

from __future__ import annotations

import typer

from madtp_cli.cli import context, results
from madtp_cli.cli import option_groups as groups
from madtp_cli.cli import options as opt
from madtp_cli.reporting import reading


@groups.add(groups.RUN_OUTPUT)
def rerun(
    ctx: typer.Context,
    report: opt.ReportFile,
    output: opt.RerunOutput = None,
    checkpoint: opt.RerunCheckpoint = None,
    data: opt.RerunData = None,
    verify: opt.Verify = False,
) -> None:
    """Repeat the run of a report, and tell whether the weights are the same."""
    terminal = context.terminal(ctx)
    reading.read_report(report)
    context.import_torch(terminal)
    from madtp_cli.pipelines import rerun as pipeline

    words = terminal.command_line
    repeated = pipeline.rerun(report, terminal, output=output, checkpoint=checkpoint, data=data, command_line=words)
    context.print_report(ctx, repeated, results.rerun.show)
    if verify:
        pipeline.require_same(repeated)


@groups.add(groups.OUTPUT)
def doctor(ctx: typer.Context) -> None:
    """Print the environment and what works in it, for bug reports."""
    terminal = context.terminal(ctx)
    from madtp_cli.pipelines import doctor as pipeline

    terminal.start("Checking the environment", 0)
    found = pipeline.doctor()
    terminal.finish()
    context.print_report(ctx, found, results.doctor.show)
    pipeline.require_usable(found)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=context.examples("madtp rerun blip-madtp/report.json --verify"))(rerun)
    app.command(epilog=context.examples("madtp doctor", "madtp doctor --json > doctor.json"))(doctor)
