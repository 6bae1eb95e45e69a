"""The reports of the commands, as they are printed with --json and saved as report.json.

This module is the import path of everything in a report. See `reporting.parts` for units.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from madtp_cli.reporting.data_parts import (
    AnswerShare,
    CaptionCount,
    CutTextsPart,
    DuplicatePart,
    ImagesPart,
    RowsPart,
    SamplePart,
    TaskPart,
)
from madtp_cli.reporting.doctor import DevicePart, DoctorReport, TorchPart
from madtp_cli.reporting.environment import Environment
from madtp_cli.reporting.export_parts import ExportCheck
from madtp_cli.reporting.gate_parts import FailureClass, GatePart, GatesPart
from madtp_cli.reporting.index_parts import IndexPart
from madtp_cli.reporting.parts import (
    AGREEMENT,
    CONVENTION,
    BudgetPart,
    ChangePart,
    CheckedGflops,
    CurvePoint,
    DensePruned,
    GenerationCostPart,
    GflopsPart,
    Interval,
    LatencyPart,
    LayerPart,
    QualityPart,
    TimesPart,
    WeightsPart,
)
from madtp_cli.reporting.plain_text import encodable
from madtp_cli.reporting.record import RecordPart, SettingPart
from madtp_cli.reporting.rerun import RerunReport
from madtp_cli.reporting.run_parts import (
    AgreementPart,
    AllocationTrial,
    BudgetPoint,
    ComputePart,
    SetBudgetPart,
    TrainingPoint,
)

__all__ = [
    "AGREEMENT",
    "CONVENTION",
    "AgreementPart",
    "AnswerShare",
    "BudgetPart",
    "CaptionCount",
    "ChangePart",
    "CheckReport",
    "CheckedGflops",
    "CompressReport",
    "ComputePart",
    "CurvePoint",
    "CutTextsPart",
    "DataReport",
    "DensePruned",
    "DevicePart",
    "DoctorReport",
    "DuplicatePart",
    "Environment",
    "EvalReport",
    "ExportCheck",
    "ExportReport",
    "GatePart",
    "GatesPart",
    "GenerationCostPart",
    "GflopsPart",
    "ImagesPart",
    "IndexPart",
    "Interval",
    "LatencyPart",
    "LayerPart",
    "ProfileReport",
    "QualityPart",
    "RecordPart",
    "RerunReport",
    "RowsPart",
    "SamplePart",
    "SettingPart",
    "TaskPart",
    "TimesPart",
    "TorchPart",
    "TrainingPoint",
    "WeightsPart",
]


class _Report(BaseModel):
    """A complete JSON document."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_encoded(cls, fields: Any) -> Any:
        return encodable(fields)

    schema_version: int = 1
    """Version of the document's format, a number without unit."""


class _ModelReport(_Report):
    """What the reports on a checkpoint have in common."""

    checkpoint: str
    """Path of the checkpoint, or name of the architecture."""
    task: str
    """Name of the task."""
    data: str
    """Where the samples come from."""
    notes: list[str] = []
    """Sentences that a reader of the figures should know."""
    cut_texts: CutTextsPart = CutTextsPart()
    """The texts that are longer than the model reads."""
    compute: ComputePart | None = None
    """Device and number format; null where nothing was computed on samples, and in older reports."""
    set_budget: SetBudgetPart | None = None
    """The budget that was set without training; null for that of the checkpoint."""


class CompressReport(_ModelReport):
    """The result of `madtp compress`."""

    command: Literal["compress"] = "compress"
    """The command that made the report."""
    output: str
    """Path of the folder that was written."""
    method: str
    """Name of the pruning method."""
    budget: BudgetPart
    """The budget, and the cost on the validation samples."""
    gflops: GflopsPart
    """Cost of the reported samples."""
    generation: GenerationCostPart | None = None
    """Generation cost; null where the forward pass gives the answer."""
    quality: ChangePart
    """Quality of both models on the reported samples."""
    agreement: AgreementPart | None = None
    """How often both models give the same answer; null in older reports."""
    index: IndexPart | None = None
    """Index compatibility of an image encoder; null for other tasks."""
    gates: GatesPart | None = None
    """The gates of the run and their verdicts; null without gates."""
    latency: LatencyPart
    """Times of both models."""
    tokens: dict[str, list[LayerPart]]
    """The blocks of each tower, with their token counts."""
    weights: WeightsPart
    """Number format and size of the saved weights."""
    threshold_scale: float
    """The threshold scale that meets the budget, a number without unit."""
    curve: list[CurvePoint]
    """The calibrated curve: cost on the validation samples by threshold scale, including all trials of the last
    calibration."""
    budgets: list[BudgetPoint] = []
    """The pruned model at other budgets of its range; empty for a single budget."""
    allocation: list[AllocationTrial] = []
    """The allocations of the budget that were tried, the chosen one first; empty if none was tried."""
    training: list[TrainingPoint] = []
    """Steps of the fine-tune, at most 200 of them at equal distances; empty without a fine-tune."""
    settings: dict[str, object]
    """Every setting of the run, as it was given."""
    record: RecordPart = RecordPart()
    """What the run depends on, and how to repeat it."""
    environment: Environment
    """Versions and machine."""
    seconds: float
    """Duration of the run, in seconds."""


class EvalReport(_ModelReport):
    """The result of `madtp eval`."""

    command: Literal["eval"] = "eval"
    """The command that made the report."""
    quality: QualityPart
    """Quality on the reported samples."""
    gflops: GflopsPart
    """Cost of the reported samples."""
    generation: GenerationCostPart | None = None
    """Generation cost; null where the forward pass gives the answer."""
    change: ChangePart | None = None
    """Quality of both models, if a gate compares with the dense model; else null."""
    agreement: AgreementPart | None = None
    """How often both models give the same answer, if a gate compares with the dense model; else null."""
    index: IndexPart | None = None
    """Index compatibility of a pruned image encoder; null for other tasks."""
    latency: LatencyPart | None = None
    """Times, if a gate needs them; else null."""
    gates: GatesPart | None = None
    """The gates of the run and their verdicts; null without gates."""
    environment: Environment | None = None
    """Versions and machine; null in older reports."""
    seconds: float
    """Duration of the run, in seconds."""


class ProfileReport(_ModelReport):
    """The result of `madtp profile`."""

    command: Literal["profile"] = "profile"
    """The command that made the report."""
    samples: int
    """Number of samples."""
    gflops: CheckedGflops
    """Cost of the samples, with the fvcore check."""
    generation: GenerationCostPart | None = None
    """Generation cost; null where the forward pass gives the answer."""
    towers: dict[str, float]
    """GFLOPs per sample of each tower."""
    layers: list[LayerPart]
    """Cost and token counts of each layer."""
    latency: list[LatencyPart] = []
    """Times, one entry for each batch size; empty without --time."""
    parameters: int
    """Number of parameters."""
    environment: Environment
    """Versions and machine."""


class CheckReport(_Report):
    """The result of `madtp check`."""

    command: Literal["check"] = "check"
    """The command that made the report."""
    checkpoint: str
    """Path of the checkpoint, or of the report that was read."""
    source: str
    """Path of the report whose figures were checked; "measured" if `madtp check` measured them."""
    task: str
    """Name of the task."""
    data: str
    """Where the samples come from."""
    passed: bool
    """Whether no gate failed."""
    failure_class: FailureClass | None
    """The most serious failure class of the gates; null if all passed."""
    gates: GatesPart
    """The gates and their verdicts."""
    notes: list[str] = []
    """Sentences that a reader of the figures should know."""


class DataReport(_Report):
    """The result of `madtp data`."""

    command: Literal["data"] = "data"
    """The command that made the report."""
    path: str
    """Path of the data set."""
    tasks: dict[str, TaskPart]
    """The rows for each task that can use the data set."""
    images: dict[str, ImagesPart]
    """The distinct images of each split."""
    duplicates: list[DuplicatePart]
    """Images that occur in two splits."""
    notes: list[str]
    """Sentences that a user of the data should know."""


class ExportReport(_Report):
    """What `madtp export` wrote."""

    command: Literal["export"] = "export"
    """The command that made the report."""
    checkpoint: str
    """Path of the checkpoint."""
    file: str
    """Path of the exported file."""
    format: str
    """Name of the export format."""
    task: str
    """Name of the task."""
    size_bytes: int
    """Size of the file in bytes, including the files that belong to it."""
    inputs: dict[str, list[int | str]]
    """Shape of each input in number of elements; a free size has a name instead."""
    outputs: dict[str, list[int | str]]
    """Shape of each output in number of elements; a free size has a name instead."""
    check: ExportCheck
    """How the outputs of the file compare with those of the model."""
    notes: list[str] = []
    """Sentences that a user of the file should know."""
    seconds: float
    """Duration of the command, in seconds."""
