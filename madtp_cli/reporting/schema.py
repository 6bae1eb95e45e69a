"""The numbers of a run, as they are printed, saved as report.json and read by scripts.

Qualities are in percent, changes in points, GFLOPs in multiply-adds, all per sample. Fields
are only ever added; `schema_version` changes when one changes its meaning.
"""

from __future__ import annotations

import platform
from importlib import metadata

from pydantic import BaseModel, ConfigDict

CONVENTION = "multiply-adds (fvcore convention), mean per sample at the text's true length"
AGREEMENT = "agreement with the dense model"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class BudgetPart(_Part):
    """What was asked and what the validation samples cost after the last calibration."""

    requested: str
    share: float
    gflops: float
    achieved_val: float
    achieved_share: float
    samples: int


class GflopsPart(_Part):
    """Mean cost of the reported samples; `pruned` and `share` are None for a dense source."""

    dense: float
    pruned: float | None = None
    share: float | None = None
    convention: str = CONVENTION

    @classmethod
    def of(cls, dense: float, pruned: float | None) -> GflopsPart:
        """From mean costs in GFLOPs."""
        share = None if pruned is None else float(pruned) / float(dense)
        return cls(dense=float(dense), pruned=None if pruned is None else float(pruned), share=share)


class GenerationPart(_Part):
    """Mean GFLOPs per answer of what is run to find it beside the forward, which the budget is not about.

    `what` says what that is. An answer is a sample's, or, of retrieval, a query's. `dense` is another run's by
    the dense model, where there was one, or the same run at dense token counts.
    """

    what: str
    answers: int
    dense: float
    pruned: float | None = None
    share: float | None = None
    convention: str = "multiply-adds (fvcore convention), mean per answer"


class CheckedGflops(GflopsPart):
    """Beside the formula's means: fvcore's count over `witnesses` samples, and the formula's over the same."""

    fvcore: float
    formula: float
    fvcore_samples: int


class ChangePart(_Part):
    """Quality before and after on the same samples; `interval95` is of the paired change.

    `groups` is the number of groups of samples that share an image; the interval treats groups as independent.

    `unit` is that of both: points, or, for CIDEr, percent of the dense score. `parts` are further figures
    by name, dense and pruned.
    """

    metric: str
    split: str
    samples: int
    groups: int
    dense: float
    pruned: float
    change: float
    interval95: tuple[float, float]
    unit: str = "points"
    parts: dict[str, tuple[float, float]] = {}


class QualityPart(_Part):
    """Quality of one model in `unit` with its 95 % interval; `parts` are further figures by name, in percent.

    `groups` is the same as in `ChangePart`.
    """

    metric: str
    split: str
    samples: int
    groups: int
    value: float
    interval95: tuple[float, float]
    unit: str = "percent"
    parts: dict[str, float] = {}


class CurvePoint(_Part):
    """A threshold scale that was tried, and the cost of the validation samples as a share of the dense GFLOPs."""

    threshold_scale: float
    share: float


class TimesPart(_Part):
    """One model's forwards of one batch.

    Milliseconds are of the whole batch: the median, the 5th and the 95th percentile. Memory is in units of 10^6
    bytes, at its peak: weights, batch and activations. GFLOPs are per sample; those executed include padding.
    """

    median_ms: float
    p5_ms: float
    p95_ms: float
    samples_per_second: float
    peak_memory_mb: float | None
    gflops: float
    executed_gflops: float


class LatencyPart(_Part):
    """Milliseconds per sample, medians of interleaved runs, both models' on the same batches.

    `flops_ratio` is dense over pruned GFLOPs of these samples; the realised `efficiency` is `speedup` over it, 1 where
    every saved FLOP is saved time. All of these are None where only a dense model was timed. `peak_memory_mb` is the
    pruned model's, or the dense one's where there is no other.
    """

    batch_size: int
    dense_ms: float
    pruned_ms: float | None = None
    speedup: float | None = None
    flops_ratio: float | None = None
    efficiency: float | None = None
    peak_memory_mb: float | None
    repeats: int
    device: str
    dtype: str
    threads: int
    processor: str
    dense: TimesPart
    pruned: TimesPart | None = None


class LayerPart(_Part):
    """Tokens of one input into and out of a layer over the samples, and the layer's mean GFLOPs."""

    tower: str
    layer: str
    gflops: float
    tokens_in: float | None = None
    tokens_out: float | None = None
    tokens_out_p5: float | None = None
    tokens_out_p95: float | None = None


class Environment(_Part):
    """What a figure may depend on besides the command."""

    madtp: str
    torch: str
    transformers: str
    python: str
    machine: str

    @classmethod
    def here(cls) -> Environment:
        """This process."""
        from madtp_cli import __version__

        return cls(
            madtp=__version__,
            torch=metadata.version("torch"),
            transformers=metadata.version("transformers"),
            python=platform.python_version(),
            machine=platform.machine(),
        )


class _Report(BaseModel):
    schema_version: int = 1
    command: str
    checkpoint: str
    task: str
    data: str
    notes: list[str] = []


class CompressReport(_Report):
    """What `madtp compress` did and what it cost."""

    output: str
    method: str
    budget: BudgetPart
    gflops: GflopsPart
    answering: GenerationPart | None = None
    quality: ChangePart
    latency: LatencyPart
    tokens: dict[str, list[LayerPart]]
    threshold_scale: float
    curve: list[CurvePoint]
    settings: dict[str, object]
    environment: Environment
    seconds: float


class EvalReport(_Report):
    """What `madtp eval` measured; `quality` is None where samples have no labels."""

    quality: QualityPart
    gflops: GflopsPart
    answering: GenerationPart | None = None
    seconds: float


class ProfileReport(_Report):
    """What `madtp profile` counted, and what it timed, one entry of `latency` per batch size."""

    samples: int
    gflops: CheckedGflops
    answering: GenerationPart | None = None
    towers: dict[str, float]
    layers: list[LayerPart]
    latency: list[LatencyPart] = []
    parameters: int
    environment: Environment


class CaptionCount(_Part):
    """Captions of an image over a split."""

    least: int
    mean: float
    most: int


class RowsPart(_Part):
    """Rows of one split, and of what balance: percent that are true, answers with their percent, or captions."""

    rows: int
    true_percent: float | None = None
    commonest_answers: list[tuple[str, float]] | None = None
    captions_per_image: CaptionCount | None = None


class SamplePart(_Part):
    """One row as it was read."""

    split: str
    identifier: str
    images: list[str]
    text: str
    label: int | None
    references: list[str]


class TaskPart(_Part):
    """What data hold for one task."""

    layout: str
    splits: dict[str, RowsPart]
    samples: list[SamplePart]


class ImagesPart(_Part):
    """Different images of one split; `checked` were decoded, and `unreadable` of these could not be."""

    images: int
    missing: int
    checked: int
    unreadable: int
    missing_first: list[str]
    unreadable_first: list[str]


class DuplicatePart(_Part):
    """Images that stand in two splits, by path or, where checked, by content."""

    splits: tuple[str, str]
    images: int
    first: list[str]


class DataReport(BaseModel):
    """What `madtp data` recognised."""

    schema_version: int = 1
    command: str = "data"
    path: str
    tasks: dict[str, TaskPart]
    images: dict[str, ImagesPart]
    duplicates: list[DuplicatePart]
    notes: list[str]
