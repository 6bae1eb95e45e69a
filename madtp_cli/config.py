"""The settings of a run: flag > `MADTP_*` variable > config file > default, and where each came from.

A flag `--batch-size`, a variable `MADTP_BATCH_SIZE` and a line `batch_size: 16` fill the
same field, listed once, below. Nothing is guessed: a name that is no setting is an error
that says which one was probably meant. YAML files of BLIP and MADTP are recognised by
their keys and translated. Relative paths are relative to the working directory.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, overload

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from madtp_cli.errors import UsageError

PREFIX = "MADTP_"
#: The one `MADTP_*` variable that is no setting: the config file to read where `--config` names none.
CONFIG_VARIABLE = PREFIX + "CONFIG"

#: Keys of BLIP's and MADTP's YAML files and the settings they fill.
BLIP_KEYS = {
    "ann_root": "data",
    "vqa_root": "image_root",
    "batch_size_train": "batch_size",
    "init_lr": "learning_rate",
    "max_epoch": "epochs",
}
#: With two of these a file is one of theirs; one alone is more likely a slip in ours.
_BLIP_MARKS = {*BLIP_KEYS, "batch_size_test", "vit", "vit_grad_ckpt", "vit_ckpt_layer", "sd_dim", "sd_num"}

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]


#: Steps of a fine-tune for which neither steps nor epochs were given.
DEFAULT_STEPS = 360
#: Learning rate times width: what a unit may change in a step should not grow with its number of inputs.
RATE_TIMES_WIDTH = 0.02
#: The dictionary starts from random values, so it learns much faster than the pretrained weights.
DICTIONARY_LEARNING_RATE = 2e-3


class RunSettings(BaseModel):
    """What `compress`, `eval` and `profile` share: the data, the device, how to read a checkpoint."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        str_strip_whitespace=True,
        use_attribute_docstrings=True,
    )

    data: UserPath | None = None
    """Folder or file with annotations, or the name of a cached Hugging Face data set. Default: the built-in scenes."""
    image_root: UserPath | None = None
    """Folder of the images; its usual subfolders, such as images/, are searched too. Default: the folder of the
    annotations."""
    task: str | None = None
    """Task that the checkpoint must have; another task is an error. Default: the task of the checkpoint."""
    split: Literal["train", "val", "test"] = "test"
    """Split of the reported samples: train, val or test."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of samples per split, 1 or more. Default: all samples."""
    batch_size: int = Field(default=16, ge=1)
    """Samples per batch, 1 or more."""
    workers: int | None = Field(default=None, ge=0)
    """Number of processes that decode images, 0 or more; 0 decodes in the main process. Results stay the same.
    Default: the number of CPU cores minus one, at most 4; for the built-in scenes 0."""
    k_test: int | None = Field(default=None, ge=1)
    """Number of candidates that are scored in full, 1 or more: answers per VQA question, if the data set lists all
    answers (default: 128), or matches per query in BLIP retrieval (default: 16)."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """Device of the computation: auto, cpu, cuda, cuda:1 or mps. auto uses cuda if there is a GPU, and cpu if not."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the forward passes: auto, float32, bfloat16 or float16. auto means float32. Weights are always
    saved in float32."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all random numbers, from 0 to 4294967295."""
    tokenizer: UserPath | None = None
    """Folder with the tokenizer files. Default: next to the checkpoint, or in the local Hugging Face cache."""
    head_width: int | None = Field(default=None, ge=1)
    """Width of an attention head, 1 or more, for checkpoint files that do not store it. Default: 64, as in all
    published models."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """Activation function of the feed-forward layers in CLIP files: quick_gelu or gelu. Default: quick_gelu, as in
    OpenAI models; OpenCLIP trains with gelu."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _notes: list[str] = PrivateAttr(default_factory=list)

    @property
    def origins(self) -> dict[str, str]:
        """Where each setting came from: "--seed", "MADTP_SEED", "run.yaml line 3 (seed)" or "default"."""
        return self._origins

    @property
    def notes(self) -> list[str]:
        """What the user should be told: keys that were translated or ignored, settings that gave way."""
        return self._notes

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: object, info: ValidationInfo) -> object:
        """Refuse "", which as a path would mean the working directory, and `yes` for a number."""
        if isinstance(value, str) and not value.strip():
            raise ValueError("it is empty")
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false are no value for it")
        return value


class CompressSettings(RunSettings):
    """Everything `madtp compress` can be told."""

    gflops_budget: str
    """Cost that remains after pruning: a share of the dense GFLOPs (0.2 or 20%) or GFLOPs per sample (26.5G)."""
    output: UserPath | None = None
    """Folder to write. Default: ./CHECKPOINT-madtp."""
    overwrite: bool = False
    """Replace the output folder if madtp wrote it: true or false."""
    method: str = "madtp"
    """Pruning method."""
    steps: int | None = Field(default=None, ge=0)
    """Number of fine-tuning steps, 0 or more; 0 only calibrates. Give steps or epochs, not both. Default: 360."""
    epochs: float | None = Field(default=None, ge=0)
    """Fine-tuning length in passes over the train split, 0 or more; fractions are allowed. Give steps or epochs, not
    both."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of the pretrained weight matrices, above 0, at most 1. Default: 0.02 divided by the width of
    the model."""
    dictionary_learning_rate: float = Field(default=DICTIONARY_LEARNING_RATE, gt=0, le=1)
    """Peak learning rate of the dictionary and its projections, above 0, at most 1."""

    def number_of_steps(self, train_rows: int) -> int:
        """Steps of the fine-tune for so many train rows."""
        if self.epochs is not None:
            return math.ceil(self.epochs * train_rows / self.batch_size)
        return DEFAULT_STEPS if self.steps is None else self.steps

    def rate(self, width: int) -> float:
        """Peak learning rate of the pretrained weights of a model with tokens of this width."""
        return self.learning_rate or RATE_TIMES_WIDTH / width

    @model_validator(mode="after")
    def _has_one_length(self) -> CompressSettings:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("steps and epochs exclude each other; give one of them")
        return self


class _Given(NamedTuple):
    """A value as the user wrote it; a higher rank wins."""

    value: Any
    origin: str
    rank: int


Settings = TypeVar("Settings", bound=RunSettings)
_Flags = Mapping[str, object]
_Environ = Mapping[str, str]


@overload
def resolve(flags: _Flags, config_file: Path | None, environ: _Environ) -> CompressSettings: ...
@overload
def resolve(flags: _Flags, config_file: Path | None, environ: _Environ, kind: type[Settings]) -> Settings: ...
def resolve(
    flags: _Flags, config_file: Path | None, environ: _Environ, kind: type[RunSettings] = CompressSettings
) -> RunSettings:
    """Settle every setting from flags, variables, a config file and the defaults.

    Variables and files may hold settings that `kind` does not have, so that one file
    serves all commands; flags may not.

    Args:
        flags: Settings by name; None stands for "not given".
        config_file: YAML file of settings; `MADTP_CONFIG` if None.
        environ: Usually `os.environ`. An empty variable counts as not given.
        kind: Which settings to return.

    Returns:
        The settings, with their `origins` and `notes`.

    Raises:
        UsageError: A name that is no setting, or a value out of its range.

    >>> settings = resolve({"gflops_budget": "0.2", "seed": None}, None, {"MADTP_SEED": "7"})
    >>> settings.seed, settings.origins["seed"], settings.origins["batch_size"]
    (7, 'MADTP_SEED', 'default')
    """
    if config_file is None and environ.get(CONFIG_VARIABLE):
        config_file = Path(environ[CONFIG_VARIABLE])
    written, notes = _from_file(config_file) if config_file else ({}, [])
    given = written | _from_environment(environ) | _from_flags(flags, kind)
    given = {name: item for name, item in given.items() if name in kind.model_fields}
    notes += _give_way(given)
    try:
        settings = kind.model_validate({name: item.value for name, item in given.items()})
    except ValidationError as error:
        raise UsageError(_explain(error, given, kind)) from None
    settings.origins.update({name: given[name].origin if name in given else "default" for name in kind.model_fields})
    settings.notes.extend(notes)
    return settings


def flag(name: str) -> str:
    """The command line's spelling of a setting.

    >>> flag("batch_size")
    '--batch-size'
    """
    return "--" + name.replace("_", "-")


def _from_flags(flags: _Flags, kind: type[RunSettings]) -> dict[str, _Given]:
    for name in flags:
        if name not in kind.model_fields:
            raise UsageError(f"{flag(name)} is no setting of this command.{_nearest(name, flag)}")
    return {name: _Given(value, flag(name), 3) for name, value in flags.items() if value is not None}


def _from_environment(environ: _Environ) -> dict[str, _Given]:
    given = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE or not value.strip():
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in CompressSettings.model_fields:
            hint = _nearest(name, lambda setting: PREFIX + setting.upper())
            raise UsageError(f"The environment variable {variable} is no setting.{hint}")
        given[name] = _Given(value, variable, 2)
    return given


def _from_file(path: Path) -> tuple[dict[str, _Given], list[str]]:
    """The settings in a YAML file, and what there is to say about it."""
    lines = _parse(path)
    is_blip = len(_BLIP_MARKS & lines.keys()) >= 2
    given, translated, ignored = {}, [], []
    for key, (value, line) in lines.items():
        name = BLIP_KEYS.get(key, key) if is_blip else key
        if name not in CompressSettings.model_fields:
            # A fork of BLIP may have any key of its own; only what looks like one of ours is a slip.
            if not is_blip or difflib.get_close_matches(key, CompressSettings.model_fields, cutoff=0.85):
                raise UsageError(f"{path} line {line}: {key} is no setting.{_nearest(BLIP_KEYS.get(key, key))}")
            ignored.append(key)
        elif name != key and name in lines:
            ignored.append(key)
        elif value is not None:
            given[name] = _Given(value, f"{path.name} line {line} ({key})", 1)
            if name != key:
                translated.append(f"{key} as {name}")
    if not is_blip:
        return given, []
    note = f"{path.name} is a file of BLIP's or MADTP's. Read {', '.join(translated) or 'nothing under another name'}"
    return given, [f"{note}; ignored {', '.join(ignored)}." if ignored else f"{note}."]


def _parse(path: Path) -> dict[str, tuple[Any, int]]:
    """The top-level keys of a YAML file, each with its value and line."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8-sig"))
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ValueError(f"line {root.start_mark.line + 1} is not of the form `setting: value`")
        lines: dict[str, tuple[Any, int]] = {}
        for key_node, value_node in root.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in lines:
                raise ValueError(f"lines {lines[key][1]} and {line} both set {key}")
            lines[key] = loader.construct_object(value_node, deep=True), line
        return lines
    except OSError as error:
        raise UsageError(f"Cannot read the config file {path}: {error.strerror}. Give --config a YAML file.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = f"{getattr(error, 'problem', '')} in line {mark.line + 1}" if mark else str(error).splitlines()[0]
        raise UsageError(f"{path} is not a settings file: {reason}. Write `setting: value` lines.") from error


def _give_way(given: dict[str, _Given]) -> list[str]:
    """Drop settings that a stronger source contradicts under another name; say so."""
    notes = []
    for weaker, stronger in (("steps", "epochs"), ("epochs", "steps"), ("image_root", "data")):
        if weaker in given and stronger in given and given[weaker].rank < given[stronger].rank:
            notes.append(f"{given[weaker].origin} gives way to {given[stronger].origin}.")
            del given[weaker]
    return notes


def _explain(error: ValidationError, given: Mapping[str, _Given], kind: type[RunSettings]) -> str:
    """The first thing wrong: where it was written, the value, the reason, and what is allowed."""
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{given['steps'].origin} and {given['epochs'].origin}: {reason}."
    name = str(first["loc"][0])
    allowed = kind.model_fields[name].description
    if first["type"] == "missing":
        return f"{flag(name)} is missing. {allowed}"
    why = "" if first["type"] in ("string_pattern_mismatch", "literal_error") else f": {reason[0].lower()}{reason[1:]}"
    return f"{given[name].origin}: {given[name].value!r} cannot be used{why}.\n{allowed}"


def _nearest(name: str, spelled: Callable[[str], str] = str) -> str:
    """A closing sentence that names the setting that was probably meant, or all of them."""
    near = difflib.get_close_matches(name.lower().replace("-", "_"), CompressSettings.model_fields, n=1)
    if near:
        return f" Did you mean {spelled(near[0])}?"
    return f"\nThere are {', '.join(map(spelled, CompressSettings.model_fields))}."
