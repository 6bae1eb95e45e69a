"""Allocate a budget over the pruning places: before the first block of the image tower, in its blocks, in the texts.

One threshold scale meets a budget; the factors of the places decide where the tokens are pruned. Each allocation that
is tried is calibrated to the budget on a few samples, and its outputs are compared with the dense model's. It replaces
the best one so far if it is clearly closer. That needs no training and no labels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from madtp_cli import methods
from madtp_cli.compression import calibration, stage_titles
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.output_loss import output_loss
from madtp_cli.compression.remaining_time import Pace
from madtp_cli.compression.teacher_cache import TeacherCache
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.evaluation.session import Session
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.methods import IMAGES, Preset
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import PlannedStage
from madtp_cli.reporting.run_parts import AllocationTrial

#: What is tried: first factors of the preset's scale before the first block, then of its rise over the blocks, then of
#: its scale in other towers.
EMBEDDING_FACTORS, RISE_FACTORS, TEXT_FACTORS = (1.0, 0.25, 4.0), (0.5, 2.0), (0.0, 0.5)
#: Passes that an allocation usually needs.
PASSES = 6
#: The outputs of an allocation are compared on this many times the samples of its calibration.
COMPARED = 4
#: An allocation replaces the best one so far if its loss is below this share of it. Smaller differences depend on the
#: samples.
CLEARLY = 0.9
#: An allocation is compared at a cost that differs from the budget by at most this share of it.
CLOSE = 0.01


def needs_allocation(student: Prunable, before: PruningSettings | None) -> bool:
    """Return whether `allocate` is to be called. A checkpoint that was compressed before keeps its allocation.

    Args:
        student: The student.
        before: The pruning settings of its checkpoint.
    """
    settings = student.pruning
    if settings is None or (before is not None and before.method == settings.method):
        return False
    return methods.get(settings.method).PRESET.embedding > 0


def trials(student: Prunable) -> int:
    """Return the number of allocations that `allocate` tries."""
    return len(EMBEDDING_FACTORS) + len(RISE_FACTORS) + len(TEXT_FACTORS) * _has_texts(student)


def allocate(session: Session, student: Prunable, teacher: Prunable, target: Budget, samples: int) -> Calibration:
    """Set the factors of the student's towers, and return its calibration; the session gets all trials.

    Args:
        session: Data and compute config.
        student: The student; its pruning settings change.
        teacher: The dense model.
        target: The budget, or the lower end of a range of budgets.
        samples: Number of validation samples to use, from the first one.
    """
    search = _Search(session, student, TeacherCache(teacher, session.compute), target, samples)
    preset = _preset(student)
    texts = preset.texts if _has_texts(student) else 0.0
    for factor in EMBEDDING_FACTORS:
        search.add(preset.embedding * factor, preset.rise, texts)
    embedding = search.best()[0].embedding_scale
    for factor in RISE_FACTORS:
        search.add(embedding, preset.rise * factor, texts)
    rise = search.best()[0].rise
    for factor in TEXT_FACTORS if texts else ():
        search.add(embedding, rise, texts * factor)
    best, found = search.best()
    others = [trial for trial, _ in search.trials if trial is not best]
    session.allocation[:] = [best, *sorted(others, key=_loss)]
    search.set(best.embedding_scale, best.rise, best.text_scale, found.threshold_scale)
    return found


def planned_stages(student: Prunable, samples: int, pace: Pace) -> Iterator[PlannedStage]:
    """Yield the stages of `allocate`; the first one also computes the answers of the dense model."""
    seconds = pace.calibration(samples, PASSES) + COMPARED * samples * pace.pruned
    number = trials(student)
    for trial in range(number):
        first = 0.0 if trial else COMPARED * samples * pace.dense
        yield PlannedStage(stage_titles.allocation(trial + 1, number), seconds + first, "pruned")


def _preset(student: Prunable) -> Preset:
    """Return the preset of a student's method."""
    preset: Preset = methods.get(_pruning(student).method).PRESET
    return preset


def _pruning(student: Prunable) -> PruningSettings:
    """Return the pruning settings of a student."""
    if student.pruning is None:
        raise ValueError("a dense model has nothing to allocate")
    return student.pruning


def _has_texts(student: Prunable) -> bool:
    """Return whether the method prunes a tower that does not read images."""
    return not student.blocks.keys() <= {IMAGES, *_preset(student).unpruned}


def _loss(trial: AllocationTrial) -> float:
    return float("inf") if trial.loss is None else trial.loss


@dataclass
class _Search:
    session: Session
    student: Prunable
    teacher_cache: TeacherCache
    target: Budget
    samples: int
    trials: list[tuple[AllocationTrial, Calibration]] = field(default_factory=list)

    def best(self) -> tuple[AllocationTrial, Calibration]:
        """Return the best trial and its calibration; a later trial has to be clearly better than those before it."""
        return functools.reduce(
            lambda best, pair: pair if _loss(pair[0]) < CLEARLY * _loss(best[0]) else best, self.trials
        )

    def add(self, embedding: float, rise: float, texts: float) -> None:
        """Calibrate an allocation roughly, and compare its outputs with the dense model's."""
        self.set(embedding, rise, texts, calibration.first_scale(self.student))
        title = stage_titles.allocation(len(self.trials) + 1, trials(self.student))
        found = calibration.calibrate(self.session, self.student, self.target, self.samples, rough=CLOSE, title=title)
        missed = abs(found.gflops - self.target.gflops) > 3 * CLOSE * self.target.gflops
        loss = None
        if not missed:
            loss = output_loss(self.session, self.student, self.teacher_cache, COMPARED * self.samples)
        trial = AllocationTrial(
            embedding_scale=embedding, rise=rise, text_scale=texts, loss=loss, threshold_scale=found.threshold_scale
        )
        self.trials.append((trial, found))

    def set(self, embedding: float, rise: float, texts: float, threshold_scale: float) -> None:
        """Set the factors and the threshold scale of the student."""
        preset = replace(_preset(self.student), rise=rise, texts=texts)
        scales = {tower: preset.scales(tower, blocks) for tower, blocks in self.student.blocks.items()}
        settings = replace(_pruning(self.student), scales=scales)
        self.student.attach(replace(settings, embedding_scale=embedding, threshold_scale=threshold_scale))
