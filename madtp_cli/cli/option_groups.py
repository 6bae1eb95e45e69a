"""Groups of options that several commands have, and the decorator that adds them to a command.

A command reads them from its context (`ctx.params`), so it need not list them as parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from madtp_cli.cli import options as opt

#: A group: each parameter with its annotation and its value where the option is not given.
Group = Mapping[str, tuple[Any, Any]]


def _optional(**annotations: Any) -> Group:
    """Return a group of options that are None where they are not given."""
    return {name: (annotation, None) for name, annotation in annotations.items()}


#: Which samples a run reads.
SAMPLES = _optional(
    data=opt.Data,
    image_root=opt.ImageRoot,
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
#: Every command that runs a model on samples.
RUN = {
    **SAMPLES,
    **READING,
    **_optional(batch_size=opt.BatchSize),
    **COMPUTE,
    **_optional(samples_out=opt.SamplesOut),
}
#: What every command prints.
OUTPUT: Group = {"as_json": (opt.AsJson, False), "quiet": (opt.Quiet, False), "verbose": (opt.Verbose, 0)}


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
