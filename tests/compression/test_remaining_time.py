"""The announced time is right within 30 % after a tenth of the steps; all times are of a fake clock."""

from __future__ import annotations

import pytest

from madtp_cli.compression.remaining_time import Pace, RemainingTime

#: Seconds of a step without the teacher, and of the teacher.
STUDENT, TEACHER = 1.0, 1.5


def simulated(steps: int, *, predicted: float = 1.0, warm_up: int = 3, kept: float = 1.0) -> list[tuple[float, float]]:
    """Return for each number of steps done, from 0, the estimate and the true remaining seconds.

    A third of the steps has new samples; the first steps take three times as long.

    Args:
        steps: Number of steps.
        predicted: The prediction as a multiple of the truth.
        warm_up: Number of slow steps at the start.
        kept: Share of the teacher's outputs that the cache keeps.
    """
    new = steps // 3
    remaining = RemainingTime(steps, new, kept, predicted * STUDENT, predicted * TEACHER)
    estimates, durations = [remaining.left()], []
    for step in range(1, steps + 1):
        teacher = TEACHER if step <= new else (1 - kept) * TEACHER
        slow = 3 if step <= warm_up else 1
        remaining.add_step(slow * (STUDENT + teacher), slow * teacher)
        durations.append(slow * (STUDENT + teacher))
        estimates.append(remaining.left())
    return [(estimate, sum(durations[done:])) for done, estimate in enumerate(estimates)]


@pytest.mark.parametrize("predicted", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("kept", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("steps", [120, 360])
def test_after_a_tenth_of_the_steps_the_time_left_is_right(steps, kept, predicted) -> None:
    """The first steps are slow, later ones need no teacher, and the prediction was wrong."""
    times = simulated(steps, predicted=predicted, kept=kept)
    for estimate, truth in times[steps // 10 : -1]:
        assert estimate == pytest.approx(truth, rel=0.3)
    assert times[-1] == (0.0, 0.0)


def test_the_speed_so_far_would_be_wrong() -> None:
    """The simulation is one in which a proportional estimate misses by far more than 30 %."""
    times = simulated(360)
    total = times[0][1]
    left = (total - times[36][1]) / 36 * (360 - 36)
    assert left > 1.5 * times[36][1]


def test_a_machine_that_gets_slower_is_noticed() -> None:
    """Only the latest steps count."""
    remaining = RemainingTime(400, 0, 1.0, 1.0, 0.0)
    for seconds in [1.0] * 200 + [3.0] * 60:
        remaining.add_step(seconds, 0.0)
    assert remaining.left() == pytest.approx(3.0 * 140)


def test_the_prediction_has_all_the_work_in_it() -> None:
    """A backward pass takes as long as two forward passes, and samples are prepared once."""
    pace = Pace(dense=3.0, pruned=1.0, trained=1.0, dense_answer=5.0, pruned_answer=2.0, optimizer=7.0, preparation=0.5)
    assert pace.student_step(4) == 4 * (3 * 1.0 + 0.5) + 7.0
    assert pace.calibration(10, 3) == 10 * (3 * 1.0 + 0.5)
