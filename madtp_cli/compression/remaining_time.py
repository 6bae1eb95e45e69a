"""How long a fine-tune and what follows it will take: a prediction before it starts, then updates from its steps.

The prediction is from the times of one batch. It covers all the work that is left: steps, validation of the late
states, calibrations, the evaluation of both models and their timing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

#: Passes over the samples that a calibration with a good start needs.
CALIBRATION_PASSES = 3
#: Steps at the start that take longer than the others: memory is reserved and kernels are compiled.
WARM_UP_STEPS = 1
#: The latest steps decide, so that a machine that gets slower or faster is noticed.
LATEST_STEPS = 50
#: Forward passes of each model that measure memory and multiply-adds before the timing.
MEASURING_PASSES = 4


@dataclass(frozen=True)
class Pace:
    """Measured seconds, from one batch.

    Attributes:
        dense, pruned: A forward pass, per sample.
        dense_answer, pruned_answer: A forward pass with generating or ranking of the answer, per sample.
        optimizer: A step of the optimizers.
        preparation: Decoding and collating, per sample.
    """

    dense: float
    pruned: float
    dense_answer: float
    pruned_answer: float
    optimizer: float
    preparation: float = 0.0

    def pruned_to(self, share: float) -> Pace:
        """Return an estimate for a model pruned to a share of the dense GFLOPs: its time falls as its GFLOPs do."""
        return replace(self, pruned=share * self.dense, pruned_answer=share * self.dense_answer)

    def student_step(self, samples: int) -> float:
        """Return the seconds of a training step without the teacher: a backward pass takes as long as two forward."""
        return samples * (3 * self.pruned + self.preparation) + self.optimizer

    def validation(self, calibration: int, samples: int) -> float:
        """Return the seconds of a calibration on some samples and of an evaluation on others."""
        return CALIBRATION_PASSES * calibration * self.pruned + samples * self.pruned_answer

    def evaluation(self, samples: int) -> float:
        """Return the seconds in which both models are evaluated on samples."""
        return samples * (self.dense_answer + self.pruned_answer + self.preparation)

    def timing(self, samples: int, turns: int) -> float:
        """Return the seconds in which both models are timed on batches of some samples."""
        return (turns + MEASURING_PASSES) * samples * (self.dense + self.pruned)


@dataclass
class RemainingTime:
    """The time that a fine-tune still needs; the steps that are done correct the prediction.

    Attributes:
        steps: Number of all steps.
        new_steps: The first steps, in which the teacher sees each sample for the first time.
        kept: Share of the teacher's outputs that the cache keeps, 0 to 1; later steps save this share of its time.
        student, teacher: Predicted seconds of a step without the teacher, and of the teacher's forward pass.
        pauses: Predicted seconds of the validation after a step, by the number of the step.
    """

    steps: int
    new_steps: int
    kept: float
    student: float
    teacher: float
    pauses: Mapping[int, float]
    done: int = 0
    _students: list[float] = field(default_factory=list)
    _teachers: list[float] = field(default_factory=list)
    _pause_factor: float | None = None

    def add_step(self, seconds: float, teacher: float) -> None:
        """Record the next step: its seconds, and how many of these the teacher took."""
        self.done += 1
        self._students.append(seconds - teacher)
        if self.done <= self.new_steps:  # later the teacher's time is a mean of known and new samples
            self._teachers.append(teacher)

    def add_pause(self, seconds: float) -> None:
        """Record how long the validation after the latest step took; the next one is corrected by it."""
        predicted = self.pauses.get(self.done, 0.0)
        if predicted > 0:
            self._pause_factor = seconds / predicted

    def left(self) -> float:
        """Return the seconds until the end of the fine-tune."""
        steps = self.steps - self.done
        new = max(0, self.new_steps - self.done)
        with_teacher = new + (1 - self.kept) * (steps - new)
        student = _typical(self._students, self.student)
        pauses = sum(seconds for step, seconds in self.pauses.items() if step > self.done)
        # Until a pause was measured, its prediction is as wrong as that of the steps: the machine was busy or idle.
        factor = student / self.student if self._pause_factor is None and self.student else self._pause_factor or 1.0
        return steps * student + with_teacher * _typical(self._teachers, self.teacher) + pauses * factor


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
