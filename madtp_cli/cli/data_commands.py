"""The commands about data: `madtp data` and `madtp scenes`."""

from __future__ import annotations

import dataclasses
from functools import partial

import typer

from madtp_cli import processes
from madtp_cli.cli import context, early_checks, results
from madtp_cli.cli import option_groups as groups
from madtp_cli.cli import options as opt
from madtp_cli.config import choices


@groups.add(groups.OUTPUT)
def data(
    ctx: typer.Context,
    path: opt.DataPath,
    task: opt.DataTask = None,
    image_root: opt.DataImageRoot = None,
    limit: opt.DataLimit = None,
) -> None:
    """Show the layout, tasks and rows of a data set, and check that its images can be decoded."""
    terminal = context.terminal(ctx)
    early_checks.check_choice("task", task)
    from madtp_cli.data import find_data

    find_data(path, image_root)
    context.import_torch(terminal)
    from madtp_cli import tasks
    from madtp_cli.data.validate import require_usable, validate

    schemas = {name: tasks.get(name).schema for name in ([task] if task else tasks.names())}
    report = validate(path, schemas, terminal, image_root=image_root, limit=limit, find_cut_texts=tasks.certainly_cut)
    context.print_report(ctx, report, results.data.show)
    require_usable(report)


@groups.add(groups.OUTPUT)
def scenes(
    ctx: typer.Context,
    folder: opt.ScenesFolder,
    task: opt.ScenesTask = "nlvr2",
    train: opt.Train = None,
    val: opt.Val = None,
    test: opt.Test = None,
    captions: opt.Captions = None,
    overwrite: opt.OverwriteScenes = False,
) -> None:
    """Write the built-in data set (generated scenes) to a folder, in the file layout of BLIP."""
    terminal = context.terminal(ctx)
    processes.require_one("scenes")
    choices.require("--task", task, opt.SCENES)
    from madtp_cli.scenes import splits, writing

    given = {"train": train, "val": val, "test": test}
    sizes = splits.sizes(task) | {split: number for split, number in given.items() if number is not None}
    terminal.start("Writing scenes", sum(sizes.values()))
    write = partial(writing.write_scenes, folder, task, sizes, captions=captions, overwrite=overwrite)
    written = write(progress=lambda rows, total: terminal.advance(rows))
    terminal.finish()
    context.print_document(ctx, dataclasses.asdict(written) | {"folder": str(written.folder)}, results.scenes.show)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    own_data = "madtp data pairs.csv --task retrieval --image-root photos/ --json"
    app.command(epilog=context.examples("madtp data flickr30k/", own_data))(data)
    sizes = "madtp scenes nlvr2/ --task nlvr2 --train 20000 --val 1000 --test 2000"
    app.command(epilog=context.examples(sizes))(scenes)
