"""Groups of options that several commands have, and the decorator that adds them to a command.

A command reads them from its context (`ctx.params`), so it need not list them as parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Annotated, Any, get_args

from madtp_cli.cli import options as opt
from madtp_cli.config import EvalSettings, flag
from madtp_cli.config.gates import GateSettings

#: A group: each parameter with its annotation and its value where the option is not given.
Group = Mapping[str, tuple[Any, Any]]


def _optional(**annotations: Any) -> Group:
    """Return a group of options that are None where they are not given."""
    return {name: (annotation, None) for name, annotation in annotations.items()}


#: Which samples a run reads.
SAMPLES = _optional(
    data=opt.Data,
    image_root=opt.ImageRoot,
    classes=opt.Classes,
    templates=opt.Templates,
    task=opt.Task,
    split=opt.Split,
    limit=opt.Limit,
    workers=opt.Workers,
    k_test=opt.KTest,
    match_score=opt.MatchScore,
)
#: How a checkpoint is read.
READING = _optional(
    tokenizer=opt.Tokenizer,
    head_width=opt.HeadWidth,
    activation=opt.Activation,
    weights=opt.Weights,
    match_token=opt.MatchToken,
)
#: How a model runs.
COMPUTE = _optional(prompt=opt.Prompt, device=opt.Device, dtype=opt.Dtype, config=opt.Config)
_MOVED = "Annotations of the run, if they were moved. Default: those that the run read."
#: Where the data of a finished run are now, and how its model runs here.
PLACE = _optional(
    data=Annotated[str | None, opt.option(_MOVED, "--data", panel="Data")],
    image_root=opt.ImageRoot,
    workers=opt.Workers,
    device=opt.Device,
    dtype=opt.Dtype,
    config=opt.Config,
)
#: Every command that runs a model on samples.
RUN = {
    **SAMPLES,
    **READING,
    **_optional(batch_size=opt.BatchSize),
    **COMPUTE,
    **_optional(samples_out=opt.SamplesOut),
}
#: A command that runs several models on the same samples.
SEVERAL_RUNS = {name: option for name, option in RUN.items() if name != "samples_out"}
#: What every command prints.
OUTPUT: Group = {"as_json": (opt.AsJson, False), "quiet": (opt.Quiet, False), "verbose": (opt.Verbose, 0)}
#: The same for commands that take long.
RUN_OUTPUT: Group = {"log_json": (opt.LogJson, None), **OUTPUT}


def _gate(name: str, kind: Any) -> Any:
    """Return the annotation of the option that fills a setting of the gates."""
    if kind is bool:
        return Annotated[bool | None, opt.option(_statement(name), flag(name), panel="Gates")]
    return Annotated[(float if float in (kind, *get_args(kind)) else str) | None, opt.setting(name, panel="Gates")]


def _statement(name: str) -> str:
    """Return the help text of a switch, without the values that a file would have."""
    return EvalSettings.help_text(name).replace(": true or false", "")


#: Commands that can be planned.
PLANNED: Group = {"dry_run": (opt.DryRun, False)}
#: Which point of a calibrated curve a checkpoint is set to.
POINT = _optional(gflops_budget=opt.Point)
#: The bounds on the figures of a report: an option for each setting of the gates.
GATES = {name: (_gate(name, field.annotation), None) for name, field in GateSettings.model_fields.items()}
#: The gates of a command that measures a checkpoint whose dense model is another one.
EVAL_GATES = {**GATES, "dense": (Annotated[str | None, opt.setting("dense", panel="Gates")], None)}

_MEASURE = "Measure the checkpoint on these annotations now. Default: read its report."
#: `madtp check`: its data are optional.
CHECK = {
    **RUN,
    **EVAL_GATES,
    **POINT,
    "data": (Annotated[str | None, opt.option(_MEASURE, "--data", panel="Data")], None),
}


def add(*groups: Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options of the groups to a command, after its own parameters."""
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for group in groups
        for name, (annotation, default) in group.items()
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(function, eval_str=True)

        @wraps(function)
        def command(**given: Any) -> None:
            function(**{name: value for name, value in given.items() if name in signature.parameters})

        wrapped: Any = command  # typer reads the signature
        wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])
        return command

    return decorate
