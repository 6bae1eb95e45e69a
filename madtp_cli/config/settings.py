"""Every setting of a run, with its type, range, default and help text.

The sentence below a field is its help text on the command line and part of its error message. A path that is not
absolute is relative to the working directory.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from madtp_cli.config import choices
from madtp_cli.config.budget_request import BudgetField
from madtp_cli.config.gates import GateSettings, UserPath
from madtp_cli.config.head_widths import HeadWidth


def _is_listed(value: str, info: ValidationInfo) -> str:
    """Refuse a value that is not the name of a file in the setting's folder."""
    if value not in choices.of(str(info.field_name)):
        raise PydanticCustomError("choice", "it is not one of the choices")
    return value


def _is_sample_file(path: Path) -> Path:
    """Refuse a name whose ending does not tell the format."""
    if path.suffix not in SAMPLE_SUFFIXES:
        raise PydanticCustomError("suffix", "its name must end with .jsonl or .parquet")
    return path


SampleFile = Annotated[UserPath, AfterValidator(_is_sample_file)]
FileName = Annotated[str, AfterValidator(_is_listed)]

#: Formats of the file of `samples_out`.
SAMPLE_SUFFIXES = (".jsonl", ".parquet")
#: Fine-tuning steps if neither steps nor epochs are given.
DEFAULT_STEPS = 360
#: The dictionary starts from random values, so it learns much faster than the pretrained weights.
DICTIONARY_LEARNING_RATE = 2e-3


class RunSettings(BaseModel):
    """The settings that `compress`, `eval` and `profile` share: data, device, how to read a checkpoint."""

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
    classes: UserPath | None = None
    """File with the names of the classes, for classification: one per line in the alphabetical order of their folders,
    or lines of folder, tab and name. Default: the names of the folders."""
    templates: UserPath | None = None
    """File with the texts of a class, for classification: one per line, with {} for the name of the class. Default:
    one text, "a photo of a {}."."""
    task: FileName | None = None
    """Task of the run. A CLIP or SigLIP serves retrieval, classification and embedding (its image tower alone); for
    other checkpoints another task than their own is an error. Default: the task of the checkpoint."""
    split: Literal["train", "val", "test"] = "test"
    """Split of the reported samples: train, val or test."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of samples per split, 1 or more. They are chosen at random, always the same ones, because files
    are often sorted. Default: all samples."""
    batch_size: int = Field(default=16, ge=1)
    """Samples per batch, 1 or more; in a run of several processes, of all of them together."""
    workers: int | None = Field(default=None, ge=0)
    """Number of processes that decode images, 0 or more; 0 decodes in the main process. Results stay the same.
    Default: the number of CPU cores minus one, at most 4; for the built-in scenes 0."""
    k_test: int | None = Field(default=None, ge=1)
    """Number of candidates that are scored in full, 1 or more: answers per VQA question, if the data set lists all
    answers (default: 128), or matches per query in BLIP retrieval (default: 16)."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """Device of the computation: auto, cpu, cuda, cuda:1 or mps. auto uses cuda if there is a GPU, and cpu if not."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the forward passes: auto, float32, bfloat16 or float16. auto means float32.
    bfloat16 is slower on CPUs without AVX512-BF16 or AMX."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all random numbers, from 0 to 4294967295."""
    tokenizer: UserPath | None = None
    """Folder with the tokenizer files. Default: next to the checkpoint, or in the local Hugging Face cache."""
    head_width: HeadWidth | None = None
    """Width of an attention head, 1 or more, for checkpoint files that do not store it: one number for both towers, or
    vision=80,text=64. Default: what open_clip_config.json states, else 64; for widths whose published models differ
    (1280, 1408, 1664) there is no default."""
    activation: Literal["gelu", "quick_gelu"] | None = None
    """Activation function of the feed-forward layers in CLIP files: quick_gelu (OpenAI) or gelu (OpenCLIP). Default:
    what the file or its open_clip_config.json shows; a file that does not show it is refused."""
    weights: Literal["raw", "ema"] | None = None
    """Weights to take from a file that has averaged copies too: raw, or ema for the averages. Default: raw."""
    samples_out: SampleFile | None = None
    """File to write with one record per sample (tokens, GFLOPs, predictions, scores): .jsonl, or .parquet with the
    package pyarrow. Records of an earlier run are replaced. Default: none; compress always writes samples.jsonl into
    its output folder."""

    @classmethod
    def help_text(cls, name: str) -> str:
        """Return what a setting means and allows, in one line."""
        text = " ".join((cls.model_fields[name].description or "").split())
        if name in choices.FOLDERS:
            text, default, fallback = text.partition(" Default:")
            text += f" Choices: {', '.join(choices.of(name))}.{default}{fallback}"
        return text

    match_token: Literal["enc", "cls"] | None = None
    """First token of the texts that a BLIP for retrieval matches with images: enc for [ENC], or cls for [CLS]. Default:
    as the checkpoint states; [ENC] for files of Salesforce and MADTP, which do not state it."""
    match_score: Literal["logit", "log-odds"] | None = None
    """Score of a match in BLIP retrieval, which is added to the similarity of a pair: logit, as BLIP and MADTP rank, or
    log-odds, which also uses the logit of no match. Default: logit."""
    prompt: str | None = None
    """Text that begins every caption of a BLIP; it may be empty. Default: as the checkpoint states; "a picture of" for
    files of Salesforce and MADTP, which do not state it."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _notes: list[str] = PrivateAttr(default_factory=list)
    _command_line: list[str] = PrivateAttr(default_factory=list)

    @property
    def origins(self) -> dict[str, str]:
        """The origin of each setting: "--seed", "MADTP_SEED", "run.yaml line 3 (seed)" or "default"."""
        return self._origins

    @property
    def notes(self) -> list[str]:
        """Sentences for the user: keys that were translated or ignored, settings that another one overrides."""
        return self._notes

    @property
    def command_line(self) -> list[str]:
        """The words of the command that gave the settings; none for a call from Python."""
        return self._command_line

    @field_validator("*", mode="before")
    @classmethod
    def _is_a_value(cls, value: object, info: ValidationInfo) -> object:
        """Refuse "", which as a path means the working directory, and `yes` where a number is expected."""
        if isinstance(value, str) and not value.strip() and info.field_name != "prompt":
            raise ValueError("it is empty")
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false are not allowed here")
        return value


class PointSettings(RunSettings):
    """The settings of commands that run one checkpoint as it is, or at another point of its calibrated curve."""

    gflops_budget: BudgetField | None = None
    """Budget to set in a checkpoint that was compressed for a range, without training: a share of the dense GFLOPs (0.2
    or 20%) or GFLOPs per sample (26.5G). Default: the budget that the checkpoint was saved with."""


class EvalSettings(GateSettings, PointSettings):
    """The settings of `eval` and `check`."""

    dense: UserPath | None = None
    """Checkpoint before pruning, for gates that compare with it. Default: the one that report.json of the pruned
    checkpoint names."""


class CompressSettings(GateSettings, RunSettings):
    """The settings of `compress`."""

    gflops_budget: BudgetField
    """Cost that remains after pruning: a share of the dense GFLOPs (0.2 or 20%) or GFLOPs per sample (26.5G). A range
    (0.2..0.8) trains one checkpoint for all budgets between."""
    output: UserPath | None = None
    """Folder to write. Default: ./CHECKPOINT-madtp."""
    overwrite: bool = False
    """Replace the output folder if madtp wrote it: true or false."""
    resume: bool = False
    """Continue the run of the same settings that was interrupted: true or false. Without one, the run starts; if the
    output folder already has the result of these settings, nothing is done."""
    save_every: int = Field(default=50, ge=0)
    """Fine-tuning steps after which the state is saved for resume, 0 or more; 0 saves it only when a signal stops the
    run."""
    save_dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format of the saved weights: auto, float32, float16 or bfloat16. auto keeps the format of the checkpoint.
    The weights are rounded to it before the final measurement."""
    method: FileName = "madtp"
    """Pruning method: madtp, madtp-paper for the rule of the paper, or a baseline to compare them with."""
    steps: int | None = Field(default=None, ge=0)
    """Number of fine-tuning steps, 0 or more; 0 only calibrates. Give steps or epochs, not both. Default: 360."""
    epochs: float | None = Field(default=None, ge=0, le=1e6)
    """Fine-tuning length in passes over the train split, 0 or more, at most 1000000; fractions are allowed. Give steps
    or epochs, not both."""
    accumulate: int = Field(default=1, ge=1)
    """Parts into which the batch of a step is split, 1 or more. They run one after another, which saves memory; losses
    that compare samples compare those of one part."""
    tracker: Literal["tensorboard", "wandb", "trackio"] | None = None
    """Program that records loss, GFLOPs, threshold scale and learning rate of each step: tensorboard (files in runs/),
    wandb or trackio. It needs the package of that name and accelerate. Default: none."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of the pretrained weight matrices, above 0, at most 1. Default: 0.007 divided by the width of
    the model, and up to three times as much if pruning has changed the outputs a lot."""
    dictionary_learning_rate: float = Field(default=DICTIONARY_LEARNING_RATE, gt=0, le=1)
    """Peak learning rate of the dictionary and its projections, above 0, at most 1."""

    def output_for(self, source: Path) -> Path:
        """Return the output folder for a checkpoint."""
        return self.output or Path(f"{source.resolve().stem}-madtp")

    def number_of_steps(self, train_rows: int) -> int:
        """Return the number of fine-tuning steps for a training split of `train_rows` rows."""
        if self.epochs is not None:
            return math.ceil(self.epochs * train_rows / self.batch_size)
        return DEFAULT_STEPS if self.steps is None else self.steps

    @model_validator(mode="after")
    def _has_one_length(self) -> CompressSettings:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("steps and epochs exclude each other; give one of them")
        return self


#: Every setting of any command, by name: variables and config files may have the settings of other commands.
ALL_FIELDS = EvalSettings.model_fields | CompressSettings.model_fields
