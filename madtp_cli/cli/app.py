"""The command line: parse, call, print; `exits` makes exit codes of errors. torch loads only inside commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from madtp_cli import __version__
from madtp_cli.cli.console import Terminal
from madtp_cli.cli.exit_codes import Commands
from madtp_cli.cli.memory import reuse_freed_memory
from madtp_cli.config import CompressSettings, RunSettings, flag, resolve

_EXIT_CODES = (
    "Exit codes: 0 done, 1 a bug, 2 usage or config, 3 unusable input, 4 budget unreachable or missed, "
    "5 exported file failed its check, 6 output exists or cannot be written, 130/143 interrupted."
)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Compress vision-language models by dropping the tokens they can do without.",
    epilog=_EXIT_CODES,
)


def _option(text: str, *names: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


def _setting(name: str, *short: str, panel: str = "Run") -> Any:
    """An option that fills a setting; its help is the setting's own sentence."""
    field = CompressSettings.model_fields[name]
    default = "" if field.is_required() or field.default in (None, False) else f" Default {field.default}."
    return _option(f"{field.description}{default}", flag(name), *short, panel=panel)


_SOURCE = typer.Argument(help="Checkpoint, dense or pruned, file or folder.", show_default=False)
_CONFIG_HELP = "YAML file of settings; BLIP's and MADTP's own are translated."

Checkpoint = Annotated[Path, _SOURCE]
Config = Annotated[Path | None, _option(_CONFIG_HELP, "--config", "-c", panel="Run")]
AsJson = Annotated[bool, _option("Print one JSON document.", "--json", panel="Output")]
Quiet = Annotated[bool, _option("No progress and no notes.", "--quiet", "-q", panel="Output")]
Verbose = Annotated[int, _option("-vv shows tracebacks.", "--verbose", "-v", panel="Output", count=True)]
Data = Annotated[str | None, _setting("data", panel="Data")]
ImageRoot = Annotated[str | None, _setting("image_root", panel="Data")]
TaskName = Annotated[str | None, _setting("task", panel="Data")]
Split = Annotated[str | None, _setting("split", panel="Data")]
Limit = Annotated[int | None, _setting("limit", panel="Data")]
Workers = Annotated[int | None, _setting("workers", panel="Data")]
KTest = Annotated[int | None, _setting("k_test", panel="Data")]
Tokenizer = Annotated[str | None, _setting("tokenizer", panel="Data")]
HeadWidth = Annotated[int | None, _setting("head_width", panel="Data")]
Activation = Annotated[str | None, _setting("activation", panel="Data")]
BatchSize = Annotated[int | None, _setting("batch_size", "-b")]
Device = Annotated[str | None, _setting("device")]
Dtype = Annotated[str | None, _setting("dtype")]
Seed = Annotated[int | None, _setting("seed")]
Budget = Annotated[str | None, _setting("gflops_budget", panel="Budget")]
Method = Annotated[str | None, _setting("method", panel="Budget")]
Steps = Annotated[int | None, _setting("steps", panel="Training")]
Epochs = Annotated[float | None, _setting("epochs", panel="Training")]
LearningRate = Annotated[float | None, _setting("learning_rate", panel="Training")]
DictionaryRate = Annotated[float | None, _setting("dictionary_learning_rate", panel="Training")]
Output = Annotated[str | None, _setting("output", "-o", panel="Output")]
Overwrite = Annotated[
    bool | None, _option("Replace the output folder if madtp wrote it.", "--overwrite", panel="Output")
]
Arch = Annotated[str | None, _option("A published architecture instead of a checkpoint.", "--arch", panel="Data")]
_TEXT_HELP = "One text of this many tokens instead of data; dense only."
TextTokens = Annotated[int | None, _option(_TEXT_HELP, "--text-tokens", panel="Data", min=3)]
ListArchs = Annotated[bool, _option("Name the architectures that --arch knows.", "--list-archs", panel="Data")]
_TIME_HELP = "Time forwards too, a pruned model and its dense one in turns, and tell their peak memory."
Time = Annotated[bool, _option(_TIME_HELP, "--time", panel="Time")]
_SIZES_HELP = "Samples per timed forward, with commas. Default 1,8,32."
BatchSizes = Annotated[str | None, _option(_SIZES_HELP, "--batch-sizes", panel="Time")]
_LIMIT_HELP = "Decode at most this many images of each split; all if not given."


def _terminal(given: Mapping[str, Any]) -> Terminal:
    """The terminal to speak with, as loud as a command's options say."""
    terminal: Terminal = given["ctx"].obj
    terminal.verbosity = -1 if given.get("quiet") else given["verbose"]
    return terminal


def _settings(given: Mapping[str, Any], kind: type[RunSettings]) -> tuple[Any, Terminal]:
    """Settings of a command from its local variables, and the terminal to speak with."""
    terminal = _terminal(given)
    flags = {name: value for name, value in given.items() if name in kind.model_fields}
    settings = resolve(flags, given["config"], os.environ, kind)
    for note in settings.notes:
        terminal.message(note)
    return settings, terminal


def _show(report: BaseModel, as_json: bool, show: Callable[[Any], None]) -> None:
    """A report for a script, or as `show` puts it for a person."""
    sys.stdout.write(report.model_dump_json(indent=2) + "\n") if as_json else show(report)


def _show_document(command: str, found: dict[str, Any], as_json: bool, show: Callable[[Any], None]) -> None:
    document = {"schema_version": 1, "command": command, **found}
    sys.stdout.write(json.dumps(document, indent=2) + "\n") if as_json else show(found)


@app.command(
    epilog="madtp compress blip.pt --gflops-budget 0.2 · madtp compress blip.pth --gflops-budget 26.5G -o half"
)
def compress(
    ctx: typer.Context,
    checkpoint: Checkpoint,
    gflops_budget: Budget = None,
    method: Method = None,
    data: Data = None,
    image_root: ImageRoot = None,
    task: TaskName = None,
    split: Split = None,
    limit: Limit = None,
    workers: Workers = None,
    k_test: KTest = None,
    tokenizer: Tokenizer = None,
    head_width: HeadWidth = None,
    activation: Activation = None,
    steps: Steps = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    dictionary_learning_rate: DictionaryRate = None,
    batch_size: BatchSize = None,
    device: Device = None,
    dtype: Dtype = None,
    seed: Seed = None,
    config: Config = None,
    output: Output = None,
    overwrite: Overwrite = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Bring a checkpoint to a FLOPs budget, and save what it becomes."""
    settings, terminal = _settings(locals(), CompressSettings)
    from madtp_cli.pipelines import compress as pipeline

    report = pipeline.compress(checkpoint, settings, terminal)
    _show(report, as_json, terminal.show_compress)


@app.command("eval", epilog="madtp eval blip-madtp · madtp eval blip-madtp --data nlvr2/ --split val --json")
def evaluate(
    ctx: typer.Context,
    checkpoint: Checkpoint,
    data: Data = None,
    image_root: ImageRoot = None,
    task: TaskName = None,
    split: Split = None,
    limit: Limit = None,
    workers: Workers = None,
    k_test: KTest = None,
    tokenizer: Tokenizer = None,
    head_width: HeadWidth = None,
    activation: Activation = None,
    batch_size: BatchSize = None,
    device: Device = None,
    dtype: Dtype = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Measure a checkpoint's quality and cost on labelled samples."""
    settings, terminal = _settings(locals(), RunSettings)
    from madtp_cli.pipelines import evaluate as pipeline

    report = pipeline.evaluate(checkpoint, settings, terminal)
    _show(report, as_json, terminal.show_eval)


@app.command(epilog="madtp profile blip-madtp --time · madtp profile --arch blip-nlvr-base --text-tokens 36")
def profile(
    ctx: typer.Context,
    checkpoint: Annotated[Path | None, _SOURCE] = None,
    arch: Arch = None,
    list_archs: ListArchs = False,
    text_tokens: TextTokens = None,
    clock: Time = False,
    batch_sizes: BatchSizes = None,
    data: Data = None,
    image_root: ImageRoot = None,
    task: TaskName = None,
    split: Split = None,
    limit: Limit = None,
    workers: Workers = None,
    k_test: KTest = None,
    tokenizer: Tokenizer = None,
    head_width: HeadWidth = None,
    activation: Activation = None,
    batch_size: BatchSize = None,
    device: Device = None,
    dtype: Dtype = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Count GFLOPs and tokens by tower and layer, with fvcore as a witness; with --time also time them."""
    settings, terminal = _settings(locals(), RunSettings)
    if list_archs:
        from madtp_cli.models.architectures import ARCHITECTURES

        found = {"architectures": list(ARCHITECTURES)}
        _show_document("profile", found, as_json, lambda known: typer.echo("\n".join(known["architectures"])))
        return
    from madtp_cli.evaluation import timing
    from madtp_cli.pipelines import profile as pipeline

    sizes = timing.asked(clock, batch_sizes)
    report = pipeline.profile(checkpoint, settings, terminal, arch=arch, text_tokens=text_tokens, batch_sizes=sizes)
    _show(report, as_json, terminal.show_profile)


@app.command(epilog="madtp export blip-madtp blip.onnx · madtp export blip-madtp blip.pt2 --format torch-export")
def export(
    ctx: typer.Context,
    checkpoint: Checkpoint,
    file: Annotated[Path, typer.Argument(help="File to write, .onnx or .pt2.", show_default=False)],
    name: Annotated[
        str | None, typer.Option("--format", help="onnx or torch-export; as the file's name ends, unless told.")
    ] = None,
    tokenizer: Tokenizer = None,
    head_width: HeadWidth = None,
    activation: Activation = None,
    overwrite: Annotated[bool, _option("Replace the file.", "--overwrite", panel="Output")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write a checkpoint as one file that runs without madtp, and check its answers."""
    terminal = _terminal(locals())
    import dataclasses

    from madtp_cli import exporters as exporting
    from madtp_cli.cli.formatting import exported

    told: dict[str, Any] = {"tokenizer": tokenizer, "head_width": head_width, "activation": activation}
    written = exporting.export(checkpoint, file, name, terminal, overwrite=overwrite, **told)
    _show_document("export", dataclasses.asdict(written), as_json, lambda found: typer.echo(exported(found)))


@app.command(epilog="madtp inspect model_base_nlvr.pth")
def inspect(
    ctx: typer.Context,
    checkpoint: Checkpoint,
    head_width: HeadWidth = None,
    activation: Activation = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Say what a checkpoint is, without building its model."""
    terminal = _terminal(locals())
    import dataclasses

    from madtp_cli.checkpoint.load import inspect as look

    found = dataclasses.asdict(look(checkpoint, head_width=head_width, activation=activation))
    _show_document("inspect", found, as_json, terminal.show_inspection)


@app.command(epilog="madtp data flickr30k/ · madtp data pairs.csv --task retrieval --image-root photos/ --json")
def data(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="Data set, file or folder.", show_default=False)],
    task: Annotated[str | None, _option("Only this task; every task if not given.", "--task", panel="Data")] = None,
    image_root: Annotated[Path | None, _setting("image_root", panel="Data")] = None,
    limit: Annotated[int | None, _option(_LIMIT_HELP, "--limit", panel="Data", min=1)] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Say what a data set is, which tasks it can serve, and whether its images can be used."""
    terminal = _terminal(locals())
    from madtp_cli.data.validate import refuse_unusable, survey

    report = survey(path, terminal, task=task, image_root=image_root, limit=limit)
    _show(report, as_json, terminal.show_data)
    refuse_unusable(report)


@app.command(epilog="madtp scenes nlvr2/ --task nlvr2 --train 20000 --val 1000 --test 2000")
def scenes(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    task: Annotated[str, typer.Option(help="Which annotations to write.")] = "nlvr2",
    train: Annotated[int | None, typer.Option(min=0, help="Train samples; 20,000 if not given.")] = None,
    val: Annotated[int | None, typer.Option(min=0, help="Validation samples; 1,000, for retrieval 500.")] = None,
    test: Annotated[int | None, typer.Option(min=0, help="Test samples; 2,000, for retrieval 1,000.")] = None,
    captions: Annotated[int | None, typer.Option(help="Captions of an image, for retrieval: 5 or 1.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier call wrote.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write the built-in data set to a folder, in the layout of BLIP's users."""
    terminal = _terminal(locals())
    import dataclasses

    from madtp_cli.scenes import splits, writing

    given = {"train": train, "val": val, "test": test}
    sizes = splits.sizes(task) | {split: number for split, number in given.items() if number is not None}
    terminal.start("Writing scenes", sum(sizes.values()))
    written = writing.write_scenes(
        folder,
        task,
        sizes,
        captions=captions,
        overwrite=overwrite,
        progress=lambda done, total: terminal.advance(done),
    )
    terminal.finish()
    document = dataclasses.asdict(written) | {"folder": str(written.folder)}
    _show_document("scenes", document, as_json, terminal.show_scenes)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", "-V", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Print the version if asked."""
    if show:
        sys.stdout.write(f"madtp {__version__}\n")
        raise typer.Exit


def main() -> None:
    """Entry point of `madtp`."""
    reuse_freed_memory()
    app()
