"""Timed variants of a batch and their ratios, and the records in which they are kept."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from examples.bench.token_plans import TokenStatistics


@dataclass(frozen=True)
class Timing:
    """The timed runs of one variant: seconds per batch, GFLOPs per sample, and peak memory in MB if measured."""

    name: str
    budget: float
    seconds: list[float]
    gflops: float
    peak_mb: float | None = None

    @property
    def median(self) -> float:
        """Median of the seconds per batch."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Case:
    """One batch of one model at one dtype, with the timings of all variants.

    `statistics` and `padding_ratios` are by budget, see `token_plans`. `growing` is "batch", "image" or "text" if the
    case belongs to the tables of how cost grows; otherwise it is empty.
    """

    architecture: str
    device: str
    dtype: str
    threads: int
    samples: int
    image_size: int
    text_tokens: int
    timings: list[Timing]
    statistics: dict[str, TokenStatistics] = field(default_factory=dict)
    padding_ratios: dict[str, tuple[float, float]] = field(default_factory=dict)
    growing: str = ""

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Case:
        """Return the case whose `to_json` is `fields`."""
        return cls(**{**fields, "timings": [Timing(**timing) for timing in fields["timings"]]})

    def to_json(self) -> dict[str, Any]:
        """Return all fields as a dictionary that JSON can hold."""
        return asdict(self)

    def find(self, name: str, budget: float = 1.0) -> Timing | None:
        """Return the timing of a variant, or None if it was not timed."""
        return next((timing for timing in self.timings if (timing.name, timing.budget) == (name, budget)), None)

    @property
    def dense(self) -> Timing:
        """The timing of the dense model."""
        return next(timing for timing in self.timings if timing.name == "dense")

    @property
    def pruned(self) -> list[Timing]:
        """The timings of the pruned model, one per budget."""
        return [timing for timing in self.timings if timing.name == "pruned"]

    def flops_ratio(self, timing: Timing) -> float:
        """Return the dense FLOPs divided by the FLOPs of a variant."""
        return self.dense.gflops / timing.gflops

    def speedup(self, timing: Timing) -> float:
        """Return the dense time divided by the time of a variant."""
        return time_ratio(self.dense.seconds, timing.seconds)

    def efficiency(self, timing: Timing) -> float:
        """Return the speed-up divided by the FLOPs ratio; 1 if all saved FLOPs become saved time."""
        return self.speedup(timing) / self.flops_ratio(timing)

    def milliseconds(self, timing: Timing | None) -> float | None:
        """Return the milliseconds per sample of a variant, or None if it was not timed."""
        return None if timing is None else 1000 * timing.median / self.samples


def time_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return the median of the ratios of two variants, turn by turn.

    All variants of a turn use the same token counts, and a busy machine slows them down alike.

    >>> time_ratio([4.0, 2.0, 30.0], [2.0, 1.0, 10.0])
    2.0
    """
    return statistics.median(first / second for first, second in zip(slow, fast, strict=True))


def load_or_make(file: Path, make: Callable[[], Any]) -> Any:
    """Return the content of a JSON file; if the file does not exist, write the result of `make` first."""
    if not file.exists():
        text = json.dumps(make(), indent=1) + "\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return json.loads(file.read_text("utf-8"))
