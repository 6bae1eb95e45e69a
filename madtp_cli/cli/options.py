"""The options and arguments of the commands.

An option that fills a setting takes its help text from the field in `madtp_cli.config`, so each sentence exists once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from madtp_cli.config import CompareSettings, CompressSettings, EvalSettings, PointSettings, RunSettings, choices, flag
from madtp_cli.scenes import TASKS as SCENES


def option(text: str, *names: str, panel: str, **more: Any) -> Any:
    """Describe an option: help text, spellings, and the panel of `--help` that lists it."""
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False, **more)


def setting(name: str, *short: str, panel: str = "Run", kind: type[RunSettings] = CompressSettings) -> Any:
    """Describe an option that fills a setting, with the setting's help text, choices and default."""
    kind = EvalSettings if kind is CompressSettings and name not in kind.model_fields else kind
    field, text = kind.model_fields[name], kind.help_text(name)
    if field.is_required():
        text += " [required]"
    elif field.default is not None and field.annotation is not bool:
        text += f" [default: {field.default}]"
    return option(text, flag(name), *short, panel=panel, **completed(name))


def completed(name: str) -> dict[str, Any]:
    """Return the argument with which a shell completes the values of an option; none without a list of values."""
    if not choices.of(name):
        return {}

    def complete(incomplete: str) -> list[str]:
        return [value for value in choices.of(name) if value.startswith(incomplete)]

    return {"autocompletion": complete}


SOURCE = typer.Argument(help="Checkpoint, dense or pruned: a file or a folder.", show_default=False)
Checkpoint = Annotated[Path, SOURCE]
Checked = Annotated[
    Path,
    typer.Argument(
        help="Folder of `madtp compress`, or file with a --json document; with --data a checkpoint.", show_default=False
    ),
]

Config = Annotated[
    Path | None,
    option(
        "YAML file of settings. Files of BLIP and MADTP are translated. Default: the file in MADTP_CONFIG, if any.",
        "--config",
        "-c",
        panel="Run",
    ),
]
AsJson = Annotated[bool, option("Print the result as one JSON document.", "--json", panel="Output")]
LogJson = Annotated[
    Path | None,
    option(
        "Append events to this file while the command runs, one JSON object per line.", "--log-json", panel="Output"
    ),
]
DryRun = Annotated[
    bool,
    option(
        "Read and check everything, print the plan with estimates of time, memory and disk, and write nothing.",
        "--dry-run",
        panel="Output",
    ),
]
Quiet = Annotated[bool, option("Print no progress and no messages, only errors.", "--quiet", "-q", panel="Output")]
Verbose = Annotated[
    int, option("Given twice (-vv): print the traceback of an error.", "--verbose", "-v", panel="Output", count=True)
]

Data = Annotated[str | None, setting("data", panel="Data")]
ImageRoot = Annotated[str | None, setting("image_root", panel="Data")]
Classes = Annotated[str | None, setting("classes", panel="Data")]
Templates = Annotated[str | None, setting("templates", panel="Data")]
Task = Annotated[str | None, setting("task", panel="Data")]
Split = Annotated[str | None, setting("split", panel="Data")]
Limit = Annotated[int | None, setting("limit", panel="Data")]
Workers = Annotated[int | None, setting("workers", panel="Data")]
KTest = Annotated[int | None, setting("k_test", panel="Data")]
MatchScore = Annotated[str | None, setting("match_score", panel="Data")]

Tokenizer = Annotated[str | None, setting("tokenizer", panel="Checkpoint")]
HeadWidth = Annotated[str | None, setting("head_width", panel="Checkpoint")]
Activation = Annotated[str | None, setting("activation", panel="Checkpoint")]
Weights = Annotated[str | None, setting("weights", panel="Checkpoint")]
MatchToken = Annotated[str | None, setting("match_token", panel="Checkpoint")]
Prompt = Annotated[str | None, setting("prompt", panel="Checkpoint")]

BatchSize = Annotated[int | None, setting("batch_size", "-b")]
Device = Annotated[str | None, setting("device")]
Dtype = Annotated[str | None, setting("dtype")]
Seed = Annotated[int | None, setting("seed")]

SamplesOut = Annotated[str | None, setting("samples_out", panel="Output")]

Budget = Annotated[str | None, setting("gflops_budget", panel="Budget")]
Point = Annotated[str | None, setting("gflops_budget", panel="Budget", kind=PointSettings)]
Method = Annotated[str | None, setting("method", panel="Budget")]
Steps = Annotated[int | None, setting("steps", panel="Training")]
Epochs = Annotated[float | None, setting("epochs", panel="Training")]
LearningRate = Annotated[float | None, setting("learning_rate", panel="Training")]
DictionaryRate = Annotated[float | None, setting("dictionary_learning_rate", panel="Training")]
Output = Annotated[str | None, setting("output", "-o", panel="Output")]
SaveDtype = Annotated[str | None, setting("save_dtype", panel="Output")]
Overwrite = Annotated[
    bool | None, option("Replace the output folder, if madtp wrote it.", "--overwrite", panel="Output")
]
Resume = Annotated[bool | None, option(CompressSettings.help_text("resume"), "--resume", panel="Output")]
Accumulate = Annotated[int | None, setting("accumulate", panel="Training")]
Tracker = Annotated[str | None, setting("tracker", panel="Output")]
SaveEvery = Annotated[int | None, setting("save_every", panel="Output")]

Methods = Annotated[str | None, setting("methods", panel="Points", kind=CompareSettings)]
Budgets = Annotated[str | None, setting("budgets", panel="Points", kind=CompareSettings)]
Seeds = Annotated[int | None, setting("seeds", panel="Points", kind=CompareSettings)]
CompareSteps = Annotated[int | None, setting("steps", panel="Training", kind=CompareSettings)]
CompareOutput = Annotated[str | None, setting("output", "-o", panel="Output", kind=CompareSettings)]
CompareTime = Annotated[
    bool | None, option("Time every model too. [default: --time]", "--time/--no-time", panel="Output")
]

Arch = Annotated[
    str | None,
    option(
        "Count a published architecture instead of a checkpoint; see --list-archs.",
        "--arch",
        panel="Architecture",
        **completed("arch"),
    ),
]
ListArchs = Annotated[
    bool, option("List the architectures that --arch accepts, and exit.", "--list-archs", panel="Architecture")
]
FvcoreCheck = Annotated[
    bool,
    option(
        "Compare the count with fvcore on 8 samples, which takes most of the time. [default: --fvcore-check]",
        "--fvcore-check/--no-fvcore-check",
        panel="Output",
    ),
]
TextTokens = Annotated[
    int | None,
    option(
        "Count one sample with a text of this many tokens, 3 or more, instead of --data. Dense models only. "
        "Default with --arch: the text length of the published figures.",
        "--text-tokens",
        panel="Architecture",
        min=3,
    ),
]
Time = Annotated[
    bool,
    option(
        "Also time forward passes and measure peak memory. A pruned model is timed in turns with its dense model.",
        "--time",
        panel="Time",
    ),
]
BatchSizes = Annotated[
    str | None,
    option("Batch sizes for --time, separated by commas. [default: 1,8,32]", "--batch-sizes", panel="Time"),
]

ExportFile = Annotated[Path, typer.Argument(help="File to write: .onnx or .pt2.", show_default=False)]
ExportFormat = Annotated[
    str | None,
    option(
        f"Format of the file. Choices: {', '.join(choices.of('format'))}. Default: by the file extension.",
        "--format",
        panel="Output",
        **completed("format"),
    ),
]
OverwriteFile = Annotated[bool, option("Replace the file if it exists.", "--overwrite", panel="Output")]

DataPath = Annotated[
    Path, typer.Argument(help="Data set: a folder, a file or a cached Hugging Face name.", show_default=False)
]
DataTask = Annotated[
    str | None,
    option(
        f"Check the data for this task only. Choices: {', '.join(choices.of('task'))}. Default: every task.",
        "--task",
        panel="Data",
        **completed("task"),
    ),
]
DataImageRoot = Annotated[Path | None, setting("image_root", panel="Data")]
DataLimit = Annotated[
    int | None,
    option("Decode at most this many images per split. Default: all images.", "--limit", panel="Data", min=1),
]

ScenesFolder = Annotated[Path, typer.Argument(help="Folder to write.", show_default=False)]
ScenesTask = Annotated[
    str,
    option(
        f"Task of the annotations. Choices: {', '.join(SCENES)}. [default: nlvr2]",
        "--task",
        panel="Data",
        autocompletion=lambda incomplete: [task for task in SCENES if task.startswith(incomplete)],
    ),
]
Train = Annotated[
    int | None,
    option("Number of train samples, 0 or more. [default: 20000]", "--train", panel="Data", min=0),
]
Val = Annotated[
    int | None,
    option("Number of validation samples, 0 or more. [default: 1000 or 500, by task]", "--val", panel="Data", min=0),
]
Test = Annotated[
    int | None,
    option("Number of test samples, 0 or more. [default: 2000 or 1000, by task]", "--test", panel="Data", min=0),
]
Captions = Annotated[
    int | None,
    option("Captions per image, only for retrieval: 5, or 1 longer one. [default: 5]", "--captions", panel="Data"),
]
OverwriteScenes = Annotated[
    bool, option("Replace what an earlier `madtp scenes` wrote.", "--overwrite", panel="Output")
]

ReportFile = Annotated[
    Path, typer.Argument(help="A folder that `madtp compress` wrote, or its report.json.", show_default=False)
]
RerunOutput = Annotated[
    Path | None,
    option("Folder to write. Default: the name of the first output and -rerun.", "--output", "-o", panel="Output"),
]
RerunCheckpoint = Annotated[
    Path | None, option("The checkpoint, if it is not where the first run found it.", "--checkpoint", panel="Data")
]
RerunData = Annotated[
    Path | None, option("The data, if they are not where the first run found them.", "--data", panel="Data")
]
Verify = Annotated[bool, option("End with exit code 5 if the weights differ.", "--verify", panel="Output")]
