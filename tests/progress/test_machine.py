"""The speed of the machine is measured quickly, and without the memory of other objects."""

from __future__ import annotations

import gc

import pytest

from madtp_cli.progress import machine


def test_a_machine_that_takes_twice_as_long_is_twice_as_slow(monkeypatch) -> None:
    """All estimates are multiplied by it. Collections of garbage are off while it is measured, and only then."""
    times = iter([9.0, *[2 * machine.REFERENCE_SECONDS] * (machine.TIMES - 1)])
    seen = list[bool]()

    def seconds() -> float:
        seen.append(gc.isenabled())
        return next(times)

    monkeypatch.setattr(machine, "_seconds", seconds)
    assert machine.slowness() == pytest.approx(2.0)
    assert seen == [False] * machine.TIMES
    assert gc.isenabled()


def test_the_real_measurement_takes_little_time() -> None:
    """It runs at the start of a command."""
    assert 0.05 < machine.slowness() < 50
