"""Quality at the budgets of a range; tests/cli/test_check.py compares the figures of a real run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from madtp_cli.config import resolve
from madtp_cli.pipelines.range_points import measured_points


def test_a_range_without_a_curve_has_no_other_budgets() -> None:
    """Where the cost jumps, the calibration may find a single point; nothing is run then."""
    compressed: Any = SimpleNamespace(target=None, student=None, settings=SimpleNamespace(curve=[]))
    nothing: Any = None
    settings = resolve({"gflops_budget": "0.2..0.8"}, None, {})
    assert measured_points(nothing, settings, compressed, nothing, lambda label: nothing) == []
