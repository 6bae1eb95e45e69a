"""The documents of commands whose results are no figures of a run, of errors, and of the lines of a log."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from madtp_cli.reporting.parts import LayerPart, Part
from madtp_cli.reporting.samples import BothGflops


class _Document(BaseModel):
    """A complete JSON document."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    schema_version: int = 1
    """Version of the document's format, a number without unit."""


class InspectReport(_Document):
    """The result of `madtp inspect`."""

    command: Literal["inspect"] = "inspect"
    """The command that made the document."""
    source: str
    """Path of the checkpoint."""
    format: str
    """Name of the file format."""
    task: str
    """Name of the task."""
    towers: dict[str, dict[str, int]]
    """Sizes of each tower: number of layers and heads, widths and positions in units, image and patch in pixels."""
    parameters: int
    """Number of weights that the model uses; tied weights count once."""
    precision: str
    """Number formats of the tensors."""
    matched: int
    """Number of tensors with the key and the shape that the model needs."""
    missing: list[str]
    """Keys that the model needs and the checkpoint lacks."""
    unexpected: list[str]
    """Keys of the checkpoint that the model does not have."""
    reshaped: dict[str, tuple[list[int], list[int]]]
    """Shapes in number of elements, in the file and in the model, of tensors where they differ."""
    dropped: dict[str, list[str]]
    """Keys of the file that no model needs, by the reason."""
    notes: list[str]
    """What was assumed or converted."""
    refusal: str | None
    """Why the checkpoint cannot be loaded; null if it can."""


class SceneSplit(Part):
    """One split of the written scenes."""

    rows: int
    """Number of rows."""
    texts: int
    """Number of statements, questions or captions."""
    true_percent: float | None
    """Share of true statements, in percent; null for other tasks."""
    commonest_percent: float | None
    """Share of the most frequent answer, in percent; null for other tasks."""
    kinds: dict[str, tuple[int, float]]
    """By kind of text: the number of rows, and the same share in percent."""


class TextOnlyPart(Part):
    """How well a classifier answers that reads the texts and sees no image."""

    accuracy: float
    """Accuracy in percent."""
    samples: int
    """Number of test samples."""


class ScenesReport(_Document):
    """The result of `madtp scenes`."""

    command: Literal["scenes"] = "scenes"
    """The command that made the document."""
    folder: str
    """Path of the folder that was written."""
    task: str
    """Name of the task."""
    splits: dict[str, SceneSplit]
    """The splits by name."""
    text_only: dict[str, TextOnlyPart]
    """Accuracy without the images, for all rows and by kind of text."""


class ArchitecturesReport(_Document):
    """The result of `madtp profile --list-archs`."""

    command: Literal["profile"] = "profile"
    """The command that made the document."""
    architectures: list[str]
    """Names for --arch."""


class TokenGroupPart(Part):
    """Original tokens that are one token after a block."""

    kept: int | None
    """Number of the kept token, from 0; null if only pruned tokens are in the group."""
    members: tuple[int, ...]
    """Numbers of all tokens of the group, from 0."""


class ShownBlockPart(Part):
    """An image after a block that prunes."""

    block: int
    """Number of the block, from 1."""
    tokens: int
    """Number of tokens after the block."""
    groups: list[TokenGroupPart]
    """The tokens that remain."""


class ShownImagePart(Part):
    """An image as the model sees it."""

    rows: int
    """Number of rows of patches."""
    columns: int
    """Number of columns of patches."""
    blocks: list[ShownBlockPart]
    """The blocks that prune."""


class ShownTextPart(Part):
    """A text as the model reads it."""

    tower: str
    """The tower that reads it."""
    tokens: list[str]
    """The tokens."""


class AnswersPart(Part):
    """The answers of both models."""

    dense: str
    """Answer of the dense model."""
    pruned: str | None
    """Answer of the pruned model; null for a dense checkpoint."""
    right: str
    """The label; empty if it is not known."""
    dense_model: str
    """Which model `dense` is of."""


class ShowReport(_Document):
    """The result of `madtp show`."""

    command: Literal["show"] = "show"
    """The command that made the document."""
    file: str | None
    """Path of the written file; null with --terminal."""
    text: str
    """The text of the sample."""
    answers: AnswersPart
    """The answers of both models."""
    gflops: BothGflops
    """Cost of the sample."""
    images: list[ShownImagePart]
    """The images."""
    texts: list[ShownTextPart]
    """The texts, one for each tower that prunes them."""
    layers: list[LayerPart]
    """Cost and token counts of each layer."""


class PageReport(_Document):
    """The result of `madtp report`."""

    command: Literal["report"] = "report"
    """The command that made the document."""
    file: str
    """Path of the page."""
    folders: list[str]
    """The folders that it is about."""


class ErrorReport(_Document):
    """What a command with --json prints on stderr if it fails: one object on one line, the last line."""

    command: str | None
    """The command that failed; null if it is not known."""
    code: int
    """The exit code, a number without unit; see `madtp --help`."""
    kind: str
    """The class of the error, such as DataError; "bug", "interrupted" or "terminated" for other ends."""
    message: str
    """What is wrong and where."""
    hint: str | None
    """What to do; null if the message has no advice."""


class LogEvent(BaseModel):
    """One line of --log-json."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    event: Literal["run", "start", "step", "message", "finish", "error", "end"]
    """What happened: the run begins or ends, a stage starts or finishes, a step is done, or there is a message."""
    seconds: float
    """Time since the run began, in seconds."""
    command: str | None = None
    """The command, for the event run."""
    stage: str | None = None
    """Name of the stage; a stage within another one has its own name."""
    step: int | None = None
    """Number of samples or steps that are done in the stage."""
    total: int | None = None
    """Number of all samples or steps of the stage; null where it is not known."""
    loss: float | None = None
    """Loss of a step of the fine-tune, a number without unit."""
    gflops: float | None = None
    """Mean GFLOPs per sample of the step."""
    threshold_scale: float | None = None
    """Threshold scale after the step, a number without unit."""
    text: str | None = None
    """The message or the error, or the state of the step in words."""
    code: int | None = None
    """Exit code of a run that failed, a number without unit."""
