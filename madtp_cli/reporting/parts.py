"""The parts of the reports on a model: budget, cost, quality, time and token counts.

Names of fields are a promise to scripts. Fields are only added; `schema_version` of the report increases when a field
changes its meaning. Qualities are in percent and changes in percentage points, unless `unit` says otherwise. One GFLOP
is 10^9 multiply-adds.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema, model_validator

from madtp_cli.reporting.plain_text import encodable

#: How GFLOPs per sample are counted.
CONVENTION = "multiply-adds (fvcore convention), mean per sample at the text's true length"
#: The metric where the labels of the data do not fit the checkpoint.
AGREEMENT = "agreement with the dense model"


class Part(BaseModel):
    """A part of a report. The text under a field becomes its description in the JSON schema."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _can_be_encoded(cls, fields: Any) -> Any:
        return encodable(fields)


#: JSON has no infinite numbers: they are written as null.
_NUMBER_OR_NULL = WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]})
LowerEnd = Annotated[float, BeforeValidator(lambda value: -math.inf if value is None else value), _NUMBER_OR_NULL]
UpperEnd = Annotated[float, BeforeValidator(lambda value: math.inf if value is None else value), _NUMBER_OR_NULL]


class Interval(Part):
    """A 95 % confidence interval, in the unit of the figure that it belongs to."""

    low: LowerEnd
    """Lower end, in the unit of the figure; null if it is infinite."""
    high: UpperEnd
    """Upper end, in the unit of the figure; null if it is infinite."""

    @classmethod
    def of(cls, ends: tuple[float, float]) -> Interval:
        """Make the part from both ends, the lower end first."""
        return cls(low=ends[0], high=ends[1])


class DensePruned(Part):
    """One figure of the dense model and of the pruned model."""

    dense: float
    """Figure of the dense model, in the unit of the figure."""
    pruned: float
    """Figure of the pruned model, in the unit of the figure."""


class BudgetPart(Part):
    """The budget, and the cost of the validation samples after the last calibration."""

    requested: str
    """The budget as the user wrote it."""
    share: float
    """The budget as a share of the dense GFLOPs, 0 to 1."""
    gflops: float
    """The budget in GFLOPs per sample."""
    achieved_val: float
    """Mean GFLOPs per sample of the pruned model on the validation samples."""
    achieved_share: float
    """`achieved_val` as a share of the dense GFLOPs on the same samples."""
    samples: int
    """Number of validation samples."""


class GflopsPart(Part):
    """Mean cost per sample of the reported samples."""

    dense: float
    """GFLOPs per sample of the dense model."""
    pruned: float | None = None
    """GFLOPs per sample of the pruned model; null for a dense checkpoint."""
    share: float | None = None
    """`pruned` divided by `dense`; null for a dense checkpoint."""
    convention: str = CONVENTION
    """How the multiply-adds are counted."""

    @classmethod
    def of(cls, dense: float, pruned: float | None) -> GflopsPart:
        """Make the part from mean costs in GFLOPs; `pruned` is None for a dense checkpoint."""
        share = None if pruned is None else float(pruned) / float(dense)
        return cls(dense=float(dense), pruned=None if pruned is None else float(pruned), share=share)


class CheckedGflops(GflopsPart):
    """Mean cost per sample, with the fvcore check of the formula on a few samples."""

    fvcore: float | None
    """Mean GFLOPs per sample that fvcore counts on the checked samples; null without the check."""
    formula: float
    """Mean GFLOPs per sample that the closed formula gives for the same samples, or without the check for all."""
    fvcore_samples: int
    """Number of samples in the fvcore check; 0 without it."""


class WeightsPart(Part):
    """The saved weights."""

    dtype: str
    """Number format of the saved weights, such as float16."""
    source_dtype: str
    """Number format of most weights of the source."""
    bytes: int
    """Size of all saved weights, in bytes; the file is a few thousand bytes larger."""


class GenerationCostPart(Part):
    """Mean cost per answer of generating, ranking or re-ranking after the forward pass; no part of the budget."""

    description: str
    """What the model runs after its forward pass."""
    answers: int
    """Number of answers: one for each sample, in retrieval one for each query."""
    dense: float
    """GFLOPs per answer of the dense model; without a run of the dense model, of the same runs on all tokens."""
    pruned: float | None = None
    """GFLOPs per answer of the pruned model; null for a dense checkpoint."""
    share: float | None = None
    """`pruned` divided by `dense`; null for a dense checkpoint."""
    convention: str = "multiply-adds (fvcore convention), mean per answer"
    """How the multiply-adds are counted."""


class _MeasuredPart(Part):
    """The samples on which a metric was measured."""

    metric: str
    """Name of the metric."""
    split: str
    """The split of the samples: train, val or test."""
    samples: int
    """Number of samples."""
    groups: int
    """Number of groups of samples that share an image; the interval takes groups as independent."""


class ClassPart(Part):
    """Quality of one model on the samples of one class."""

    name: str
    """Name of the class."""
    samples: int
    """Number of samples of the class."""
    value: float
    """Share of correct samples, in percent."""


class ClassChangePart(Part):
    """Quality of the dense and the pruned model on the samples of one class."""

    name: str
    """Name of the class."""
    samples: int
    """Number of samples of the class."""
    dense: float
    """Share of correct samples of the dense model, in percent."""
    pruned: float
    """Share of correct samples of the pruned model, in percent."""


class ChangePart(_MeasuredPart):
    """Quality of the dense and the pruned model on the same samples."""

    dense: float
    """Quality of the dense model, in `value_unit`."""
    pruned: float
    """Quality of the pruned model, in `value_unit`."""
    change: float
    """Quality of the pruned model minus that of the dense model, in `unit`."""
    interval95: Interval
    """95 % confidence interval of the paired change, in `unit`."""
    pruned_interval95: Interval | None = None
    """95 % confidence interval of `pruned`, in `value_unit`; null in older reports."""
    value_unit: str = "percent"
    """Unit of `dense` and `pruned`: percent, or for CIDEr 100 x CIDEr-D."""
    unit: str = "points"
    """Unit of `change` and `interval95`: points, or for CIDEr percent of the dense score."""
    parts: dict[str, DensePruned] = {}
    """Further figures by name, in percent."""
    classes: list[ClassChangePart] = []
    """The classes of the samples, for classification."""


class QualityPart(_MeasuredPart):
    """Quality of one model."""

    value: float
    """The quality, in `unit`."""
    interval95: Interval
    """95 % confidence interval of `value`, in `unit`."""
    unit: str = "percent"
    """Unit of `value` and `interval95`."""
    parts: dict[str, float] = {}
    """Further figures by name, in percent."""
    classes: list[ClassPart] = []
    """The classes of the samples, for classification."""


class TimesPart(Part):
    """Time, memory and cost of one model's forward passes on one batch size."""

    median_ms: float
    """Median time of a batch, in milliseconds."""
    p5_ms: float
    """5th percentile of the time of a batch, in milliseconds."""
    p95_ms: float
    """95th percentile of the time of a batch, in milliseconds."""
    samples_per_second: float
    """Batch size divided by the median time."""
    peak_memory_mb: float | None
    """Peak memory of weights, batch and activations, in 10^6 bytes; null where the device cannot measure it."""
    gflops: float
    """GFLOPs per sample on tokens."""
    executed_gflops: float
    """GFLOPs per sample that were executed, padding included."""


class LatencyPart(Part):
    """Times of the dense and the pruned model on the same batches, measured in turns.

    Fields that compare the two models are null where only a dense model was timed.
    """

    batch_size: int
    """Samples per batch."""
    dense_ms: float
    """Median time per sample of the dense model, in milliseconds."""
    pruned_ms: float | None = None
    """Median time per sample of the pruned model, in milliseconds."""
    speedup: float | None = None
    """`dense_ms` divided by `pruned_ms`."""
    interval95: Interval | None = None
    """95 % confidence interval of `pruned_ms`, or of `dense_ms` if the dense model is alone, in milliseconds."""
    speedup_interval95: Interval | None = None
    """95 % confidence interval of `speedup`, a ratio."""
    flops_ratio: float | None = None
    """GFLOPs of the dense model divided by those of the pruned model, on these samples."""
    efficiency: float | None = None
    """Realised efficiency: `speedup` divided by `flops_ratio`. 1 means that time falls as much as GFLOPs."""
    peak_memory_mb: float | None
    """Peak memory of the pruned model, or of the dense one if it is alone, in 10^6 bytes."""
    repeats: int
    """Number of turns; each turn runs every model once."""
    device: str
    """The torch device, such as cpu or cuda."""
    dtype: str
    """Number format of the forward passes, such as float32."""
    threads: int
    """Number of CPU threads that torch uses."""
    processor: str
    """Name of the GPU, or architecture and instruction set of the CPU."""
    dense: TimesPart
    """Figures of the dense model."""
    pruned: TimesPart | None = None
    """Figures of the pruned model."""


class LayerPart(Part):
    """Mean cost of one layer, and the tokens of one input before and after it. Only blocks have token counts."""

    tower: str
    """The tower that the layer belongs to."""
    layer: str
    """Name of the layer."""
    gflops: float
    """Mean GFLOPs per sample."""
    tokens_in: float | None = None
    """Mean number of tokens that enter the block."""
    tokens_out: float | None = None
    """Mean number of tokens that leave the block."""
    tokens_out_p5: float | None = None
    """5th percentile of the number of tokens that leave the block."""
    tokens_out_p95: float | None = None
    """95th percentile of the number of tokens that leave the block."""


class CurvePoint(Part):
    """One trial of the calibration."""

    threshold_scale: float
    """The threshold scale that was tried, a number without unit."""
    share: float
    """Cost of the validation samples at this threshold scale, as a share of the dense GFLOPs."""
