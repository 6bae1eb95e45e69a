"""How long the stages of a compression take: a prediction from one batch, then updates from the training steps."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

#: Passes over the samples that a calibration needs: from the usual first guess, from a scale that was found on few
#: samples, and from one that was found on many.
ROUGH_PASSES, FIRST_PASSES, CALIBRATION_PASSES = 7, 5, 3
#: Steps at the start that take longer than the others: memory is reserved and kernels are compiled.
WARM_UP_STEPS = 1
#: The latest steps decide, so that a machine that gets slower or faster is noticed.
LATEST_STEPS = 50


@dataclass(frozen=True)
class Pace:
    """Measured seconds, from one batch.

    Attributes:
        dense, pruned: A forward pass, per sample.
        trained: A forward pass of a training step, per sample; for a range of budgets the mean one.
        dense_answer, pruned_answer: A forward pass with generating or ranking of the answer, per sample.
        dense_pair, pruned_pair: Matching a pair, to rank it.
        optimizer: A step of the optimizers.
        preparation: Decoding and collating, per sample.
    """

    dense: float
    pruned: float
    trained: float
    dense_answer: float
    pruned_answer: float
    optimizer: float
    preparation: float = 0.0
    dense_pair: float = 0.0
    pruned_pair: float = 0.0

    def student_step(self, samples: int) -> float:
        """Return the seconds of a training step without the teacher: a backward pass takes as long as two forward."""
        return samples * (3 * self.trained + self.preparation) + self.optimizer

    def calibration(self, samples: int, passes: int) -> float:
        """Return the seconds of passes over samples, which are prepared in the first one."""
        return samples * (passes * self.pruned + self.preparation)


@dataclass
class RemainingTime:
    """The time that the steps of a fine-tune still need; the steps that are done correct the prediction.

    Attributes:
        steps: Number of all steps.
        new_steps: The first steps, in which the teacher sees each sample for the first time.
        kept: Share of the teacher's outputs that the cache keeps, 0 to 1; later steps save this share of its time.
        student, teacher: Predicted seconds of a step without the teacher, and of the teacher's forward pass.
    """

    steps: int
    new_steps: int
    kept: float
    student: float
    teacher: float
    done: int = 0
    _students: list[float] = field(default_factory=list)
    _teachers: list[float] = field(default_factory=list)

    def add_step(self, seconds: float, teacher: float) -> None:
        """Record the next step: its seconds, and how many of these the teacher took."""
        self.done += 1
        self._students.append(seconds - teacher)
        if self.done <= self.new_steps:  # later the teacher's time is a mean of known and new samples
            self._teachers.append(teacher)

    def left(self) -> float:
        """Return the seconds until the last step is done, without validation."""
        steps = self.steps - self.done
        new = max(0, self.new_steps - self.done)
        with_teacher = new + (1 - self.kept) * (steps - new)
        return steps * _typical(self._students, self.student) + with_teacher * _typical(self._teachers, self.teacher)


def _typical(measured: list[float], predicted: float) -> float:
    """Return the median of the latest steps after the warm-up; the prediction while there are none."""
    return statistics.median(measured[WARM_UP_STEPS:][-LATEST_STEPS:] or [predicted])


def in_words(seconds: float) -> str:
    """Write a predicted duration.

    >>> in_words(0.4), in_words(34.2), in_words(100), in_words(4000)
    ('1 s', '34 s', '1.7 minutes', '67 minutes')
    """
    if seconds < 90:
        return f"{max(1, math.ceil(seconds - 0.5))} s"
    minutes = seconds / 60
    return f"{minutes:.1f} minutes" if minutes < 10 else f"{minutes:.0f} minutes"
