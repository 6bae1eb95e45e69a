"""The gates of a run: bounds on figures of its report.

One field declares a gate: its option, its variable, its line in a config file, and the figure of the report that it
reads. The beginning of the name says which side is allowed: `max_` or `min_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
#: The kind of figure, which a pipeline finds in `failure_class`.
Subject = Literal["quality", "cost", "speed"]


@dataclass(frozen=True)
class Gate:
    """Where a gate finds its figure in a report.

    Attributes:
        words: The figure in words, for people.
        subject: Kind of the figure.
        figures: Dotted paths of the figure; the first one that the report has counts. After "|" follows the path of
            its confidence interval, if it has one.
        unit: The unit of the figure and of the bound.
        unit_at: Dotted paths of the unit, for figures whose unit depends on the task; `unit` is for reports without it.
        falls: The figure of the report is a change, and the gate bounds how much it falls.
        needs: What `eval` has to measure in addition: the dense model's answers, or times.
        task: The only task whose reports have the figure; None if all have it.
        pruned_only: Whether only a pruned checkpoint has the figure.
    """

    words: str
    subject: Subject
    figures: tuple[str, ...]
    unit: str
    unit_at: tuple[str, ...] = ()
    falls: bool = False
    needs: Literal["dense", "times"] | None = None
    task: str | None = None
    pruned_only: bool = False


class GateSettings(BaseModel):
    """The gates, and how they are decided."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    max_gflops: Annotated[
        float | None,
        Field(gt=0),
        Gate("GFLOPs per sample", "cost", ("gflops.pruned", "gflops.dense"), "GFLOPs"),
    ] = None
    """Fail unless the model costs at most this many GFLOPs per sample, above 0."""
    max_share: Annotated[
        float | None,
        Field(gt=0, le=1),
        Gate("share of the dense GFLOPs", "cost", ("gflops.share",), "of dense", pruned_only=True),
    ] = None
    """Fail unless the pruned model costs at most this share of the dense GFLOPs, above 0, at most 1."""
    min_quality: Annotated[
        float | None,
        Field(),
        Gate(
            "quality",
            "quality",
            ("quality.pruned|quality.pruned_interval95", "quality.value|quality.interval95"),
            "percent",
            ("quality.value_unit", "quality.unit"),
        ),
    ] = None
    """Fail unless the metric of the task is at least this, in percent (CIDEr times 100)."""
    max_drop: Annotated[
        float | None,
        Field(ge=0),
        Gate(
            "loss of quality",
            "quality",
            ("quality.change|quality.interval95", "change.change|change.interval95"),
            "points",
            ("change.unit", "quality.unit"),
            falls=True,
            needs="dense",
        ),
    ] = None
    """Fail unless pruning loses at most this many points of the metric (CIDEr: percent of the dense score),
    0 or more."""
    max_latency_ms: Annotated[
        float | None,
        Field(gt=0),
        Gate(
            "time per sample",
            "speed",
            ("latency.pruned_ms|latency.interval95", "latency.dense_ms"),
            "ms",
            needs="times",
        ),
    ] = None
    """Fail unless a forward pass takes at most this time per sample, in milliseconds, above 0."""
    min_speedup: Annotated[
        float | None,
        Field(gt=0),
        Gate(
            "speed-up", "speed", ("latency.speedup|latency.speedup_interval95",), "x", needs="times", pruned_only=True
        ),
    ] = None
    """Fail unless the pruned model is at least this many times as fast as the dense one, above 0."""
    min_agreement: Annotated[
        float | None,
        Field(ge=0, le=100),
        Gate(
            "same answers as the dense model",
            "quality",
            ("agreement.percent|agreement.interval95",),
            "percent",
            needs="dense",
        ),
    ] = None
    """Fail unless the pruned model gives the dense model's answer for at least this percentage of the samples, 0 to
    100."""

    min_cosine: Annotated[
        float | None,
        Field(ge=-1, le=1),
        Gate(
            "cosine to the dense embedding",
            "quality",
            ("index.cosine|index.cosine_interval95",),
            "cosine",
            needs="dense",
            task="embedding",
        ),
    ] = None
    """Fail unless the embeddings of an image encoder have at least this mean cosine to the dense ones, -1 to 1."""
    min_overlap_top1: Annotated[
        float | None,
        Field(ge=0, le=100),
        Gate(
            "same best result in the dense index",
            "quality",
            ("index.pruned_in_dense.top1|index.pruned_in_dense.top1_interval95",),
            "percent",
            needs="dense",
            task="embedding",
        ),
    ] = None
    """Fail unless at least this percentage of an image encoder's queries has the same best result in the dense index as
    dense queries have, 0 to 100."""
    min_overlap_top10: Annotated[
        float | None,
        Field(ge=0, le=100),
        Gate(
            "same ten best results in the dense index",
            "quality",
            ("index.pruned_in_dense.top10|index.pruned_in_dense.top10_interval95",),
            "percent",
            needs="dense",
            task="embedding",
        ),
    ] = None
    """Fail unless at least this percentage of the ten best results of an image encoder's queries in the dense index are
    those of dense queries, 0 to 100."""

    confidence: float = Field(default=0.95, ge=0, lt=1)
    """Confidence of the intervals that decide a gate, from 0 to below 1. A gate whose interval contains the bound is
    inconclusive. 0 compares the figures alone."""
    allow_inconclusive: bool = False
    """Let inconclusive gates pass: true or false."""
    max_gain: float = Field(default=5.0, ge=0)
    """A model that gains more than this many points by pruning (CIDEr: percent) is anomalous, and the gates of its
    quality fail; 0 or more."""
    baseline: UserPath | None = None
    """Also compare with an earlier report: a report.json, a folder that has one, or a --json document."""
    max_regression: float = Field(default=1.0, ge=0)
    """Fail if the quality is this many points lower (CIDEr: percent) than that of --baseline, 0 or more."""
    max_slowdown: float = Field(default=10.0, ge=0)
    """Fail if the speed-up is this many percent smaller than that of --baseline, 0 or more."""
    allow_differences: bool = False
    """Compare with --baseline although data, device, number format or versions differ: true or false."""
    junit: UserPath | None = None
    """Also write the gates to this file as JUnit XML, one test case per gate."""

    def requested_gates(self) -> dict[str, tuple[Gate, float]]:
        """Return the gates that have a bound, by the name of their field."""
        bounds = {name: getattr(self, name) for name in gates(type(self))}
        return {name: (gates(type(self))[name], bound) for name, bound in bounds.items() if bound is not None}

    def has_gates(self) -> bool:
        """Return whether there is anything to check: a gate or a baseline."""
        return bool(self.requested_gates()) or self.baseline is not None


def gates(kind: type[BaseModel]) -> Mapping[str, Gate]:
    """Return the gates that a class of settings declares, by the name of their field.

    >>> gates(GateSettings)["min_speedup"].unit
    'x'
    """
    found: dict[str, Any] = {
        name: [part for part in field.metadata if isinstance(part, Gate)] for name, field in kind.model_fields.items()
    }
    return {name: parts[0] for name, parts in found.items() if parts}
