"""A command line from settings, for the model card."""

from __future__ import annotations

import shlex
from pathlib import Path

from madtp_cli.config.effects import WITHOUT_EFFECT
from madtp_cli.config.settings import CompressSettings
from madtp_cli.config.sources import flag

#: Settings that say nothing about the result.
LEFT_OUT = WITHOUT_EFFECT | {"device"}


def compress_command(source: Path, settings: CompressSettings) -> str:
    """Return the command that compresses a source with these settings; paths have no folders of this machine.

    >>> from madtp_cli.config.sources import resolve
    >>> settings = resolve({"gflops_budget": "0.2", "data": "/data/nlvr2", "steps": 0}, None, {})
    >>> compress_command(Path("/models/blip.pt"), settings)
    'madtp compress blip.pt --gflops-budget 0.2 --data nlvr2 --steps 0'
    """
    given = {name: getattr(settings, name) for name, origin in settings.origins.items() if origin != "default"}
    words = ["madtp", "compress", str(source) if not source.exists() and not source.is_absolute() else source.name]
    words += [flag("gflops_budget"), given.pop("gflops_budget", settings.gflops_budget).text]
    for name, value in given.items():
        if name not in LEFT_OUT and value is not None and value is not False:
            words += [flag(name)] if value is True else [flag(name), _word(value)]
    return shlex.join(words)


def _word(value: object) -> str:
    if isinstance(value, Path):
        return value.name
    if isinstance(value, dict):
        return ",".join(f"{name}={part}" for name, part in value.items())
    return str(value)
