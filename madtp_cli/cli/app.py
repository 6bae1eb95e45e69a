"""The commands. Each one parses its options, calls one function and prints the result. torch loads inside a command."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from madtp_cli import __version__
from madtp_cli.cli import context, data_commands, early_checks, exit_codes, pictures, repeating, results, start
from madtp_cli.cli import option_groups as groups
from madtp_cli.cli import options as opt
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.cli.threads import wait_without_spinning
from madtp_cli.config import CompareSettings, CompressSettings, EvalSettings, PointSettings, RunSettings
from madtp_cli.config.batch_sizes import parse_batch_sizes
from madtp_cli.pipelines import export_times
from madtp_cli.progress.forecast import Forecast

app = typer.Typer(
    cls=exit_codes.CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Prune tokens of vision-language models (BLIP, BLIP-2, CLIP, SigLIP, ViLT), so that they meet a FLOPs budget.",
    epilog=f"{context.SETTINGS}\n\n{exit_codes.DESCRIPTION}",
)


@app.command(
    epilog=context.examples(
        "madtp compress blip.pt --gflops-budget 0.2", "madtp compress blip.pth --gflops-budget 26.5G -o half"
    )
)
@groups.add(groups.RUN, groups.GATES, groups.PLANNED, groups.RUN_OUTPUT)
def compress(
    ctx: typer.Context,
    checkpoint: opt.Checkpoint,
    gflops_budget: opt.Budget = None,
    method: opt.Method = None,
    steps: opt.Steps = None,
    epochs: opt.Epochs = None,
    learning_rate: opt.LearningRate = None,
    dictionary_learning_rate: opt.DictionaryRate = None,
    accumulate: opt.Accumulate = None,
    seed: opt.Seed = None,
    output: opt.Output = None,
    save_dtype: opt.SaveDtype = None,
    overwrite: opt.Overwrite = None,
    resume: opt.Resume = None,
    save_every: opt.SaveEvery = None,
    tracker: opt.Tracker = None,
) -> None:
    """Prune a checkpoint to a FLOPs budget, fine-tune it, measure it and save it."""
    settings, terminal = context.settings(ctx, CompressSettings)
    if ctx.params["dry_run"]:
        from madtp_cli.pipelines import planning

        return context.print_report(ctx, planning.compress(checkpoint, settings, terminal), results.plan.show)
    from madtp_cli.pipelines import compress as pipeline

    return context.print_report(ctx, pipeline.compress(checkpoint, settings, terminal), results.compress.show)


@app.command(
    epilog=context.examples(
        "madtp compare blip.pt --steps 0", "madtp compare blip.pt --methods madtp,tome --budgets 0.5,0.2 --seeds 3"
    )
)
@groups.add(groups.SEVERAL_RUNS, groups.PLANNED, groups.RUN_OUTPUT)
def compare(
    ctx: typer.Context,
    checkpoint: opt.Checkpoint,
    methods: opt.Methods = None,
    budgets: opt.Budgets = None,
    seeds: opt.Seeds = None,
    steps: opt.CompareSteps = None,
    learning_rate: opt.LearningRate = None,
    dictionary_learning_rate: opt.DictionaryRate = None,
    seed: opt.Seed = None,
    output: opt.CompareOutput = None,
    time: opt.CompareTime = None,
) -> None:
    """Compare pruning methods at equal GFLOPs: table, CSV, JSON and plot. An interrupted run is continued."""
    settings, terminal = context.settings(ctx, CompareSettings)
    from madtp_cli.pipelines import compare as pipeline
    from madtp_cli.pipelines import comparison_plan

    if ctx.params["dry_run"]:
        return context.print_report(ctx, comparison_plan.compare(checkpoint, settings, terminal), results.plan.show)
    return context.print_report(ctx, pipeline.compare(checkpoint, settings, terminal), results.compare.show)


@app.command(
    "eval", epilog=context.examples("madtp eval blip-madtp", "madtp eval blip-madtp --data nlvr2/ --split val --json")
)
@groups.add(groups.RUN, groups.POINT, groups.EVAL_GATES, groups.PLANNED, groups.RUN_OUTPUT)
def evaluate(ctx: typer.Context, checkpoint: opt.Checkpoint) -> None:
    """Measure the quality and the cost of a checkpoint on labelled samples."""
    settings, terminal = context.settings(ctx, EvalSettings)
    if ctx.params["dry_run"]:
        from madtp_cli.pipelines import planning

        return context.print_report(ctx, planning.evaluate(checkpoint, settings, terminal), results.plan.show)
    from madtp_cli.pipelines import evaluate as pipeline

    return context.print_report(ctx, pipeline.evaluate(checkpoint, settings, terminal), results.evaluate.show)


@app.command(
    epilog=context.examples(
        "madtp check blip-madtp --max-drop 1 --min-speedup 2", "madtp check blip-madtp --data nlvr2/ --min-quality 97"
    )
)
@groups.add(groups.CHECK, groups.RUN_OUTPUT)
def check(ctx: typer.Context, checkpoint: opt.Checked) -> None:
    """Compare the figures of a report with bounds, and fail if one is missed; with --data, measure them now."""
    settings, terminal = context.settings(ctx, EvalSettings, early_check=ctx.params["data"] is not None)
    from madtp_cli.pipelines import check as pipeline

    context.print_report(ctx, pipeline.check(checkpoint, settings, terminal), results.check.show)


@app.command(
    epilog=context.examples("madtp profile blip-madtp --time", "madtp profile --arch blip-nlvr-base --text-tokens 36")
)
@groups.add(groups.RUN, groups.POINT, groups.PLANNED, groups.RUN_OUTPUT)
def profile(
    ctx: typer.Context,
    checkpoint: Annotated[Path | None, opt.SOURCE] = None,
    arch: opt.Arch = None,
    list_archs: opt.ListArchs = False,
    text_tokens: opt.TextTokens = None,
    timed: opt.Time = False,
    batch_sizes: opt.BatchSizes = None,
    fvcore_check: opt.FvcoreCheck = True,
) -> None:
    """Count GFLOPs and tokens by tower and layer, check the count with fvcore, and measure times with --time."""
    if list_archs:
        start.list_architectures(ctx)
    early_checks.check_choice("arch", arch)
    given = {name: ctx.params[name] for name in ("arch", "text_tokens", "fvcore_check")}
    given["batch_sizes"] = parse_batch_sizes(timed, batch_sizes)
    settings, terminal = context.settings(ctx, PointSettings)
    from madtp_cli.pipelines import planning
    from madtp_cli.pipelines import profile as pipeline

    if ctx.params["dry_run"]:
        return context.print_report(ctx, planning.profile(checkpoint, settings, terminal, **given), results.plan.show)
    return context.print_report(ctx, pipeline.profile(checkpoint, settings, terminal, **given), results.profile.show)


@app.command(
    epilog=context.examples(
        "madtp export blip-madtp blip.onnx", "madtp export blip-madtp blip.pt2 --format torch-export"
    )
)
@groups.add(groups.READING, groups.POINT, groups.PLANNED, groups.RUN_OUTPUT)
def export(
    ctx: typer.Context,
    checkpoint: opt.Checkpoint,
    file: opt.ExportFile,
    name: opt.ExportFormat = None,
    overwrite: opt.OverwriteFile = False,
) -> None:
    """Write a checkpoint as one file that runs without madtp, and check its outputs."""
    settings, terminal = context.settings(ctx, PointSettings, early_check=False)
    early_checks.check_export(ctx.params)
    if ctx.params["dry_run"]:
        context.import_torch(terminal)
        from madtp_cli.pipelines import planning

        planned = planning.export(checkpoint, file, settings, name, terminal, overwrite=overwrite)
        return context.print_report(ctx, planned, results.plan.show)
    progress = Forecast.of(terminal)
    context.import_torch(progress, lambda: export_times.announce(progress, checkpoint, file, name))
    from madtp_cli.pipelines import export as pipeline

    report = pipeline.export(checkpoint, file, settings, name, progress, overwrite=overwrite)
    return context.print_report(ctx, report, results.export.show)


@app.command(epilog=context.examples("madtp inspect model_base_nlvr.pth"))
def inspect(
    ctx: typer.Context,
    checkpoint: opt.Checkpoint,
    head_width: opt.HeadWidth = None,
    activation: opt.Activation = None,
    weights: opt.Weights = None,
    as_json: opt.AsJson = False,
    verbose: opt.Verbose = 0,
) -> None:
    """Show the format, task, sizes and completeness of a checkpoint, without building its model."""
    settings, terminal = context.settings(ctx, RunSettings, early_check=False)
    early_checks.check_checkpoint(checkpoint)
    context.import_torch(terminal)
    from madtp_cli.checkpoint import inspection

    given = {name: getattr(settings, name) for name in ("head_width", "activation", "weights")}
    found = inspection.inspect(checkpoint, **given)
    context.print_document(ctx, dataclasses.asdict(found), results.inspect.show)


for part in (data_commands, pictures, repeating):
    part.register(app)


@app.command("help", epilog=context.examples("madtp help", "madtp help compress"))
def show_help(
    ctx: typer.Context,
    command: Annotated[str | None, typer.Argument(help="Name of a command.", show_default=False)] = None,
) -> None:
    """Show the help of madtp or of one command."""
    start.show_help(ctx, command)


@app.command("schema", epilog=context.examples("madtp schema compress", "madtp schema error"))
def show_schema(
    command: Annotated[
        str | None,
        typer.Argument(
            help="Name of a command, error for errors, or log for --log-json. Default: all commands.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the JSON schema of what a command prints with --json."""
    start.show_schema(command)


@app.callback(invoke_without_command=True)
def version(
    ctx: typer.Context,
    show: Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Print the version with --version."""
    if show:
        sys.stdout.write(f"madtp {__version__}\n")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        start.show_first_steps()


def main() -> None:
    """Run madtp; the entry point of the `madtp` script."""
    reuse_freed_memory()
    wait_without_spinning()
    app()
