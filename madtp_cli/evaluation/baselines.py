"""Compare a report with an earlier one: what differs in how they were made, and how their figures changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from madtp_cli.config.gates import GateSettings
from madtp_cli.errors import InputError
from madtp_cli.evaluation.gates import Figure, Question
from madtp_cli.reporting.parts import ChangePart, Interval, LatencyPart, QualityPart
from madtp_cli.reporting.schema import CompressReport, EvalReport, ProfileReport

#: The reports that have gates and can be a baseline.
Checked = CompressReport | EvalReport | ProfileReport
#: The versions that figures may depend on.
LIBRARIES = ("madtp", "torch", "transformers")
#: The GFLOPs may be this many percent above those of the baseline, as much as a budget may be missed.
MAX_GROWTH = 1.0


def comparisons(report: Checked, baseline: Checked, settings: GateSettings) -> list[Question]:
    """Return the gates that compare a report with a baseline: quality, cost, and speed-up where both have them."""
    found = [
        _quality(report, baseline, settings.max_regression),
        _growth(report, baseline),
        _slowdown(report, baseline, settings.max_slowdown),
    ]
    return [question for question in found if question is not None]


def require_comparable(here: Mapping[str, object], baseline: Checked, settings: GateSettings) -> tuple[str, ...]:
    """Return what makes figures incomparable with a baseline, as "dtype: float32, in the baseline float16".

    Args:
        here: What the figures depend on, see `conditions`; a run may know only a part of it before it starts.
        baseline: The earlier report.
        settings: Whether differences are allowed.

    Raises:
        InputError: Something differs and the settings do not allow it.
    """
    there = conditions(baseline)
    differences = [
        f"{name}: {here[name]}, in the baseline {there[name]}"
        for name in here
        if name in there and here[name] != there[name]
    ]
    if differences and not settings.allow_differences:
        raise InputError(
            f"The baseline {settings.baseline} cannot be compared: {'; '.join(differences)}.\n"
            "Make a new baseline under the same conditions, or compare anyway with --allow-differences."
        )
    return tuple(differences)


def conditions(report: Checked) -> dict[str, object]:
    """Return what the figures of a report depend on, by name."""
    return dict(_conditions(report))


def _conditions(report: Checked) -> Iterator[tuple[str, object]]:
    """Yield what figures depend on, by name. A folder of data counts by its name, since machines differ in the rest."""
    yield "task", report.task
    yield "data", Path(report.data).name
    if not isinstance(report, ProfileReport):
        yield "metric", report.quality.metric
        yield "split", report.quality.split
        yield "samples", report.quality.samples
        yield "groups", report.quality.groups
    compute = report.compute or _latency(report)  # reports of older versions have it with the times alone
    if compute is not None:
        yield "device", compute.device
        yield "dtype", compute.dtype
    if report.environment is not None:
        for library in LIBRARIES:
            yield library, getattr(report.environment, library)


def _quality(report: Checked, baseline: Checked, bound: float) -> Question | None:
    """Return how many points, or percent of CIDEr, the quality is below that of the baseline.

    If both compare with a dense model of the same quality on these samples, the changes are compared: their intervals
    are paired and so narrower. Otherwise the qualities are.
    """
    new, old = _change(report), _change(baseline)
    unit = "points" if new is None else new.unit
    if new is not None and old is not None and math.isclose(new.dense, old.dense, abs_tol=1e-6):
        values = (new.change, old.change)
        return _regression(values, new.interval95, old.interval95, bound, unit)
    here, there = _value(report), _value(baseline)
    if here is None or there is None:
        return None
    (value, interval), (before, interval_before) = here, there
    return _regression((value, before), interval, interval_before, bound, "points")


def _regression(
    values: tuple[float, float], new: Interval | None, old: Interval | None, bound: float, unit: str
) -> Question:
    """Return the gate on the difference of a new and an old value; the variances of both add up."""
    interval, rise = None, values[0] - values[1]
    if new is not None and old is not None:
        below = math.hypot(values[0] - new.low, old.high - values[1])
        above = math.hypot(new.high - values[0], values[1] - old.low)
        interval = (rise - below, rise + above)
    figure = Figure(rise, interval).falls()
    return Question("max_regression", "quality below the baseline", "quality", figure, bound, unit, gain=rise)


def _change(report: Checked) -> ChangePart | None:
    quality = getattr(report, "quality", None)
    return quality if isinstance(quality, ChangePart) else getattr(report, "change", None)


def _value(report: Checked) -> tuple[float, Interval | None] | None:
    """Return the quality of the reported model, and its interval."""
    quality = getattr(report, "quality", None)
    if isinstance(quality, ChangePart):
        return quality.pruned, quality.pruned_interval95
    return (quality.value, quality.interval95) if isinstance(quality, QualityPart) else None


def _growth(report: Checked, baseline: Checked) -> Question | None:
    """Return by how many percent the GFLOPs rose."""
    here, there = (part.pruned or part.dense for part in (report.gflops, baseline.gflops))
    return Question(
        "max_growth", "GFLOPs above the baseline", "cost", Figure(100 * (here / there - 1)), MAX_GROWTH, "percent"
    )


def _slowdown(report: Checked, baseline: Checked, bound: float) -> Question | None:
    """Return by how many percent the speed-up fell. It is a ratio to the dense model, so other machines matter less."""
    new, old = _latency(report), _latency(baseline)
    if new is None or old is None or not new.speedup or not old.speedup or new.batch_size != old.batch_size:
        return None
    ratio, interval = new.speedup / old.speedup, None
    if new.speedup_interval95 is not None and old.speedup_interval95 is not None:
        low, high = new.speedup_interval95.low / new.speedup, new.speedup_interval95.high / new.speedup
        least, most = old.speedup_interval95.low / old.speedup, old.speedup_interval95.high / old.speedup
        below = math.hypot(1 - low, most - 1)
        above = math.hypot(high - 1, 1 - least)
        interval = (100 * (ratio * (1 - below) - 1), 100 * (ratio * (1 + above) - 1))
    figure = Figure(100 * (ratio - 1), interval).falls()
    return Question("max_slowdown", "speed-up below the baseline", "speed", figure, bound, "percent")


def _latency(report: Checked) -> LatencyPart | None:
    """Return the times of a report, of several those of the smallest batch size."""
    latency = report.latency
    if isinstance(latency, list):
        return latency[0] if latency else None
    return latency
