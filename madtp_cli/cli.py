"""The command line: parse, call, print. Errors become exit codes. torch loads only inside commands."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from madtp_cli import __version__
from madtp_cli.config import CompressSettings, RunSettings, flag, resolve
from madtp_cli.errors import MadtpError
from madtp_cli.terminal import Terminal

_EXIT_CODES = (
    "Exit codes: 0 done, 1 a bug, 2 usage or config, 3 unusable input, 4 budget unreachable or missed, "
    "5 accuracy gate failed, 6 output exists or cannot be written, 130/143 interrupted."
)


class _Terminated(BaseException):
    """SIGTERM arrived: unwind, so that nothing half-written stays."""


def _terminate(number: int, frame: object) -> None:
    raise _Terminated


class _Commands(TyperGroup):
    """Turns every way to fail into a message on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except MadtpError as error:
            self._fail(str(error), error.exit_code, error)
        except KeyboardInterrupt:
            self._fail("Interrupted; nothing was saved.", 130)
        except _Terminated:
            self._fail("Terminated; nothing was saved.", 143)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # noqa: BLE001  the last resort: a user gets a sentence, not a traceback
            if type(error).__module__.startswith("typer."):
                raise  # usage errors print themselves and exit 2
            message = f"A bug in madtp: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            self._fail(f"{message}\nRun again with -vv for the traceback, and report it.", 1, error)

    def _fail(self, message: str, code: int, error: BaseException | None = None) -> None:
        if error is not None and any(word.startswith("-vv") for word in sys.argv):
            traceback.print_exception(error)
        Terminal().fail(message)
        raise typer.Exit(code) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Compress vision-language models by dropping the tokens they can do without.",
    epilog=_EXIT_CODES,
)


def _setting(name: str, *short: str, panel: str = "Run") -> Any:
    """An option that fills a setting; its help is the setting's own sentence."""
    field = CompressSettings.model_fields[name]
    default = "" if field.is_required() or field.default in (None, False) else f" Default {field.default}."
    return typer.Option(flag(name), *short, help=f"{field.description}{default}", rich_help_panel=panel, show_default=False)


Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint, dense or pruned, file or folder.", show_default=False)]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file of settings; BLIP's and MADTP's own are translated.", rich_help_panel="Run", show_default=False)]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.", rich_help_panel="Output")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="-vv shows tracebacks.", rich_help_panel="Output", show_default=False)]  # fmt: skip
Data = Annotated[str | None, _setting("data", panel="Data")]
ImageRoot = Annotated[str | None, _setting("image_root", panel="Data")]
TaskName = Annotated[str | None, _setting("task", panel="Data")]
Split = Annotated[str | None, _setting("split", panel="Data")]
Limit = Annotated[int | None, _setting("limit", panel="Data")]
Workers = Annotated[int | None, _setting("workers", panel="Data")]
Tokenizer = Annotated[str | None, _setting("tokenizer", panel="Data")]
HeadWidth = Annotated[int | None, _setting("head_width", panel="Data")]
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
Overwrite = Annotated[bool | None, typer.Option("--overwrite", help="Replace the output folder if madtp wrote it.", rich_help_panel="Output", show_default=False)]  # fmt: skip


def _settings(given: dict[str, Any], kind: type[RunSettings]) -> tuple[Any, Terminal]:
    """Settings of a command from its local variables, and the terminal to speak with."""
    terminal = Terminal(-1 if given["quiet"] else given["verbose"])
    flags = {name: value for name, value in given.items() if name in kind.model_fields}
    settings = resolve(flags, given["config"], os.environ, kind)
    for note in settings.notes:
        terminal.say(note)
    return settings, terminal


def _show_json(document: str) -> None:
    sys.stdout.write(document + "\n")


@app.command(epilog="madtp compress blip.pt --gflops-budget 0.2 · madtp compress blip.pth --gflops-budget 26.5G --data nlvr2/")
def compress(
    checkpoint: Checkpoint,
    gflops_budget: Budget = None,
    method: Method = None,
    data: Data = None,
    image_root: ImageRoot = None,
    task: TaskName = None,
    split: Split = None,
    limit: Limit = None,
    workers: Workers = None,
    tokenizer: Tokenizer = None,
    head_width: HeadWidth = None,
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
    from madtp_cli import pipeline

    report = pipeline.compress(checkpoint, settings, terminal)
    _show_json(report.model_dump_json(indent=2)) if as_json else terminal.show_compress(report)


@app.command("eval", epilog="madtp eval blip-madtp · madtp eval blip-madtp --data nlvr2/ --split val --json")
def evaluate(
    checkpoint: Checkpoint,
    data: Data = None,
    image_root: ImageRoot = None,
    task: TaskName = None,
    split: Split = None,
    limit: Limit = None,
    workers: Workers = None,
    tokenizer: Tokenizer = None,
    head_width: HeadWidth = None,
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
    from madtp_cli import pipeline

    report = pipeline.evaluate(checkpoint, settings, terminal)
    _show_json(report.model_dump_json(indent=2)) if as_json else terminal.show_eval(report)


@app.command(epilog="madtp profile blip-madtp · madtp profile --arch blip-nlvr-base --text-tokens 36")
def profile(
    checkpoint: Annotated[Path | None, typer.Argument(help="Checkpoint, dense or pruned, file or folder.", show_default=False)] = None,
    arch: Annotated[str | None, typer.Option(help="A published architecture instead of a checkpoint.", rich_help_panel="Data", show_default=False)] = None,
    text_tokens: Annotated[int | None, typer.Option(min=3, help="One text of this many tokens instead of data; dense only.", rich_help_panel="Data", show_default=False)] = None,
    data: Data = None,
    image_root: ImageRoot = None,
    task: TaskName = None,
    split: Split = None,
    limit: Limit = None,
    workers: Workers = None,
    tokenizer: Tokenizer = None,
    head_width: HeadWidth = None,
    batch_size: BatchSize = None,
    device: Device = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:  # fmt: skip
    """Count GFLOPs and tokens by tower and layer, with fvcore as a witness."""
    settings, terminal = _settings(locals(), RunSettings)
    from madtp_cli import pipeline

    report = pipeline.profile(checkpoint, settings, terminal, arch=arch, text_tokens=text_tokens)
    _show_json(report.model_dump_json(indent=2)) if as_json else terminal.show_profile(report)


@app.command(epilog="madtp inspect model_base_nlvr.pth")
def inspect(
    checkpoint: Checkpoint,
    head_width: HeadWidth = None,
    as_json: AsJson = False,
    verbose: Verbose = 0,
) -> None:
    """Say what a checkpoint is, without building its model."""
    import dataclasses

    from madtp_cli.checkpoint import inspect as look

    found = dataclasses.asdict(look(checkpoint, head_width=head_width))
    _show_json(json.dumps({"schema_version": 1, "command": "inspect", **found}, indent=2)) if as_json else Terminal().show_inspection(found)


@app.command(epilog="madtp scenes nlvr2/ --task nlvr2 --train 20000 --val 1000 --test 2000")
def scenes(
    folder: Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)],
    task: Annotated[str, typer.Option(help="Which annotations to write.")] = "nlvr2",
    train: Annotated[int, typer.Option(min=0, help="Train samples.")] = 20_000,
    val: Annotated[int, typer.Option(min=0, help="Validation samples.")] = 1_000,
    test: Annotated[int, typer.Option(min=0, help="Test samples.")] = 2_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier call wrote.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write the built-in data set to a folder, in the layout of BLIP's users."""
    import dataclasses

    from madtp_cli.data import writing

    terminal = Terminal(-1 if quiet else verbose)
    terminal.stage("Writing scenes", train + val + test)
    written = writing.write_scenes(
        folder,
        task,
        {"train": train, "val": val, "test": test},
        overwrite=overwrite,
        progress=lambda done, total: terminal.advance(done),
    )
    terminal.done()
    document = dataclasses.asdict(written) | {"folder": str(written.folder)}
    _show_json(json.dumps({"schema_version": 1, "command": "scenes", **document}, indent=2)) if as_json else terminal.show_scenes(document)


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
    app()
