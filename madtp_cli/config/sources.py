"""Combine the sources of settings: command-line option > `MADTP_*` variable > config file > default.

An option `--batch-size`, a variable `MADTP_BATCH_SIZE` and a line `batch_size: 16` set the same setting. A name that
is not a setting is an error whose message names the most similar setting.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from pydantic import ValidationError

from madtp_cli.config import choices, limits, yaml_file
from madtp_cli.config.compare_settings import CompareSettings
from madtp_cli.config.settings import ALL_FIELDS, CompressSettings, RunSettings
from madtp_cli.errors import UsageError

PREFIX = "MADTP_"
#: The config file if `--config` is not given.
CONFIG_VARIABLE = PREFIX + "CONFIG"
#: The `MADTP_*` variables that are not settings.
_NOT_SETTINGS = {CONFIG_VARIABLE, *map(limits.variable, limits.DEFAULTS)}

#: The settings of all commands.
_ALL = ALL_FIELDS | CompareSettings.model_fields
#: Characters of a value that a message shows.
LONGEST = 60


class _Value(NamedTuple):
    """A value as the user wrote it, where it was written, and the rank of that source; a higher rank wins."""

    value: Any
    origin: str
    rank: int


Settings = TypeVar("Settings", bound=RunSettings)
_Flags = Mapping[str, object]
_Environ = Mapping[str, str]
_Values = dict[str, _Value]


def flag(name: str) -> str:
    """Return the command-line option of a setting.

    >>> flag("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def is_switch(name: str) -> bool:
    """Return whether a setting is true or false.

    >>> is_switch("overwrite"), is_switch("seed"), is_switch("no_setting")
    (True, False, False)
    """
    return name in _ALL and _ALL[name].annotation is bool


@overload
def resolve(flags: _Flags, config_file: Path | None, environ: _Environ) -> CompressSettings: ...
@overload
def resolve(
    flags: _Flags,
    config_file: Path | None,
    environ: _Environ,
    kind: type[Settings],
    spelling: Callable[[str], str] = ...,
) -> Settings: ...
def resolve(
    flags: _Flags,
    config_file: Path | None,
    environ: _Environ,
    kind: type[RunSettings] = CompressSettings,
    spelling: Callable[[str], str] = flag,
) -> RunSettings:
    """Combine all sources of settings and validate the result.

    Args:
        flags: Values by setting; None means "not given". All must be settings of `kind`; variables and config files
            may have settings of other commands, so that one file serves all.
        config_file: A YAML file of settings; the file that `MADTP_CONFIG` names if None.
        environ: Usually `os.environ`. An empty variable counts as not given.
        kind: The class of the settings to return.
        spelling: How messages write the name of a setting in `flags`: as an option, or unchanged for Python keywords.

    Raises:
        UsageError: A name is not a setting, or a value is not allowed.

    >>> settings = resolve({"gflops_budget": "0.2", "seed": None}, None, {"MADTP_SEED": "7"})
    >>> settings.seed, settings.origins["seed"], settings.origins["batch_size"]
    (7, 'MADTP_SEED', 'default')
    """
    values, notes = _combine(flags, config_file, environ, kind, spelling)
    try:
        settings = kind.model_validate({name: value.value for name, value in values.items()})
    except ValidationError as error:
        raise UsageError(_message(error, values, kind, spelling)) from None
    settings.origins.update({name: values[name].origin if name in values else "default" for name in kind.model_fields})
    settings.notes.extend(notes)
    return settings


def _combine(
    flags: _Flags, config_file: Path | None, environ: _Environ, kind: type[RunSettings], spelling: Callable[[str], str]
) -> tuple[_Values, list[str]]:
    """Return the value with the highest rank of each setting of `kind`, and the notes for the user."""
    if config_file is None and environ.get(CONFIG_VARIABLE):
        config_file = Path(environ[CONFIG_VARIABLE])
    values, notes = _from_file(config_file) if config_file else ({}, [])
    values |= _from_environment(environ) | _from_flags(flags, kind, spelling)
    values = {name: value for name, value in values.items() if name in kind.model_fields}
    return values, notes + _drop_overridden(values)


def _from_flags(flags: _Flags, kind: type[RunSettings], spelling: Callable[[str], str]) -> _Values:
    for name in flags:
        if name not in kind.model_fields:
            hint = nearest(name, kind.model_fields, spelling)
            raise UsageError(f"{spelling(name)} is not a setting of this command.{hint}")
    return {name: _Value(value, spelling(name), 3) for name, value in flags.items() if value is not None}


def _from_environment(environ: _Environ) -> _Values:
    values = {}
    for name in limits.DEFAULTS:
        limits.limit(name, environ)  # a wrong limit is refused before the first file is read
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS or not value.strip():
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in _ALL:
            hint = nearest(name, _ALL, lambda setting: PREFIX + setting.upper())
            raise UsageError(f"The environment variable {variable} is not a setting.{hint}")
        values[name] = _Value(value, variable, 2)
    return values


def _from_file(path: Path) -> tuple[_Values, list[str]]:
    """Return the settings in a config file and the notes about it."""
    file = yaml_file.read(path, _ALL)
    if file.unknown:
        line, key = file.unknown
        hint = nearest(yaml_file.BLIP_KEYS.get(key, key), _ALL)
        raise UsageError(f"{path} line {line}: {key} is not a setting.{hint}")
    return {name: _Value(value, origin, 1) for name, (value, origin) in file.values.items()}, file.notes


def _drop_overridden(values: _Values) -> list[str]:
    """Remove settings that contradict a setting from a higher source, and return a note about each."""
    notes = []
    for weaker, stronger in (("steps", "epochs"), ("epochs", "steps"), ("image_root", "data")):
        if weaker in values and stronger in values and values[weaker].rank < values[stronger].rank:
            notes.append(f"{values[stronger].origin} overrides {values[weaker].origin}.")
            del values[weaker]
    return notes


def _message(error: ValidationError, values: _Values, kind: type[RunSettings], spelling: Callable[[str], str]) -> str:
    """Return a message about the first error: where the value was written, the value, the reason, what is allowed."""
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{values['steps'].origin} and {values['epochs'].origin}: {reason}."
    name = str(first["loc"][0])
    allowed = kind.help_text(name)
    if first["type"] == "missing":
        return f"{spelling(name)} is missing. {allowed}"
    value = values[name]
    if len(reason) > 400:  # it repeats a long value
        return f"{value.origin}: {_shown(value.value)} cannot be used.\n{allowed}"
    if reason.endswith("."):  # whole sentences, which say what to do
        return f"{value.origin}: {reason}"
    if first["type"] in ("string_pattern_mismatch", "literal_error", "choice"):
        why = "." + choices.did_you_mean(value.value, choices.of(name))
    else:
        why = f": {reason[0].lower()}{reason[1:]}."
    return f"{value.origin}: {_shown(value.value)} cannot be used{why}\n{allowed}"


def _shown(value: object) -> str:
    """Return a value for a message, shortened: it can have thousands of digits, more than Python writes."""
    try:
        text = repr(value)
    except ValueError:
        return "a number with thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def nearest(name: str, known: Collection[str], spelling: Callable[[str], str] = str) -> str:
    r"""Return the end of an error message: the most similar of the known names, or all of them.

    >>> nearest("step", ["steps", "seed"]), nearest("zzz", ["steps", "seed"])
    (' Did you mean steps?', '\nThere are steps, seed.')
    """
    similar = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
    if similar:
        return f" Did you mean {spelling(similar[0])}?"
    return f"\nThere are {', '.join(map(spelling, known))}."
