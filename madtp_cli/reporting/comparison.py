"""The report of `madtp compare`: one row for each method at each budget, and the points that it is computed from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from madtp_cli.reporting.environment import Environment
from madtp_cli.reporting.parts import Interval, LatencyPart, Part

#: Names of the rows that are no methods.
DENSE, CONTROL = "dense", "control"
#: Costs that differ by at most this share count as equal. A budget is met within the same share.
EQUAL_COST = 0.01


class DifferencePart(Part):
    """The difference of two qualities on the same samples."""

    change: float
    """Quality minus the quality that it is compared with, in `unit`."""
    interval95: Interval
    """95 % confidence interval of the paired difference, in `unit`."""
    unit: str = "points"
    """Unit: points, or for CIDEr percent of the score that it is compared with."""


class ComparisonPoint(Part):
    """One run: a method at a budget with a seed. Each is one file of the results."""

    method: str
    """Name of the method, `dense`, or `control` for the dense model after the same fine-tuning."""
    budget: str | None = None
    """The budget as it was written; null for `dense` and `control`."""
    seed: int = 0
    """Seed of the run."""
    unreachable: str | None = None
    """Why the budget cannot be reached; null if it can."""
    threshold_scale: float = 0.0
    """The threshold scale that meets the budget."""
    share_val: float = 1.0
    """Cost on the validation samples as a share of the dense GFLOPs."""
    gflops: float = 0.0
    """Mean GFLOPs per reported sample."""
    scores: list[float] = Field(default=[])
    """Score of each reported sample; without labels 1 where the answer is that of the dense model."""
    count: int | None = None
    """Number of scores; null in files of earlier versions."""
    latency: LatencyPart | None = None
    """Times beside the dense model; null if nothing was timed."""
    seconds: float = 0.0
    """Duration of the run, in seconds."""
    inputs: dict[str, str] = Field(default={})
    """Fingerprints of the checkpoint, the data and the settings."""

    @model_validator(mode="after")
    def _is_complete(self) -> ComparisonPoint:
        if self.count not in (None, len(self.scores)):
            raise ValueError(f"there are {len(self.scores)} scores instead of {self.count}")
        return self


class ComparisonRow(Part):
    """The mean of all seeds of a method at a budget."""

    method: str
    """Name of the method, `dense`, or `control` for the dense model after the same fine-tuning."""
    budget: str | None
    """The budget as it was written; null for `dense` and `control`."""
    seeds: list[int]
    """Seeds of the runs, numbers without unit."""
    unreachable: str | None = None
    """Why there are no figures: the method cannot reach the budget."""
    gflops: float | None = None
    """Mean GFLOPs per reported sample."""
    share: float | None = None
    """`gflops` as a share of the dense GFLOPs."""
    within_budget: bool | None = None
    """Whether `gflops` differs from the budget by at most 1 %; null without a budget or without figures."""
    quality: float | None = None
    """Quality, in percent; CIDEr times 100."""
    quality_of_seeds: list[float] = Field(default=[])
    """Quality of each seed, in the unit of the metric."""
    to_dense: DifferencePart | None = None
    """Difference from the dense model; null for the dense model."""
    to_madtp: DifferencePart | None = None
    """Difference from `madtp` at the same budget; null for `madtp` and where it was not run."""
    milliseconds: float | None = None
    """Median time per sample, in milliseconds; null if nothing was timed."""
    speedup: float | None = None
    """Time of the dense model divided by that of this one, measured in turns."""
    dominated: bool | None = None
    """Whether another row has at least this quality for at most this cost, and is better in one of them; null without
    figures. Costs that differ by at most 1 % are equal."""


def is_dominated(point: tuple[float, float], others: Iterable[tuple[float, float]]) -> bool:
    """Return whether another (cost, quality) is at least as good in both and better in one, see `EQUAL_COST`.

    >>> is_dominated((2.0, 90.0), [(2.0, 90.0), (1.0, 90.0)]), is_dominated((1.0, 90.0), [(2.0, 95.0)])
    (True, False)
    >>> is_dominated((1.0, 90.0), [(0.995, 90.0)]), is_dominated((1.0, 90.0), [(1.005, 91.0)])
    (False, True)
    """
    cost, quality = point
    low, high = cost * (1 - EQUAL_COST), cost * (1 + EQUAL_COST)
    return any(other[0] <= high and other[1] >= quality and (other[1] > quality or other[0] < low) for other in others)


class CompareReport(BaseModel):
    """The result of `madtp compare`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    schema_version: int = 1
    """Version of the document's format, a number without unit."""
    command: Literal["compare"] = "compare"
    """The command that made the report."""
    checkpoint: str
    """Path of the checkpoint."""
    output: str
    """Folder of the results."""
    task: str
    """Name of the task."""
    data: str
    """Where the samples come from."""
    metric: str
    """Name of the metric."""
    split: str
    """The split of the reported samples."""
    samples: int
    """Number of reported samples."""
    groups: int
    """Number of groups of samples that share an image; the intervals take groups as independent."""
    steps: int
    """Number of fine-tuning steps of each run; 0 for a comparison without training."""
    rows: list[ComparisonRow]
    """The dense model, the control, and every method at every budget."""
    files: list[str]
    """Names of the files in the folder of the results."""
    notes: list[str] = []
    """Sentences that a reader of the figures should know."""
    settings: dict[str, object]
    """Every setting of the comparison."""
    environment: Environment
    """Versions and machine."""
    seconds: float
    """Duration of this run of the command, in seconds; points that were already there took none."""
