"""From a checkpoint to a student that meets the budget: memory, weights and the number of calibrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from madtp_cli import config, processes
from madtp_cli.compression import announcement, calibration, compress_model
from madtp_cli.compression.announcement import Compression, TrainingPlan
from madtp_cli.compression.budget import Budget, resolve
from madtp_cli.compression.optimizers import default_rate
from madtp_cli.compression.remaining_time import Pace, RemainingTime
from madtp_cli.compression.student import dense_teacher, prunable_student
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import Forecast
from madtp_cli.reporting.run_parts import AllocationTrial

STEPS = 10
#: Allocations that are tried for a model with a text tower.
TRIALS = 7


@pytest.fixture
def settings() -> config.CompressSettings:
    """A few steps on few samples."""
    values = {"gflops_budget": "0.7", "limit": 4, "batch_size": 2, "steps": STEPS, "device": "cpu"}
    return config.resolve(values, None, {})


@pytest.fixture
def session(checkpoint: Path, settings: config.CompressSettings) -> Session:
    """A tiny BLIP and four pairs of each split."""
    return Session.open(checkpoint, settings, ProgressReporter())


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The number of samples of each calibration."""
    numbers: list[int | None] = []
    calibrate = calibration.calibrate

    def recorded(session: Session, student: Prunable, target: Budget, samples: int | None, *more: Any, **named: Any):
        numbers.append(samples)
        return calibrate(session, student, target, samples, *more, **named)

    monkeypatch.setattr(calibration, "calibrate", recorded)
    return numbers


def test_the_teacher_is_the_dense_model_in_the_same_memory(attached, collate, samples) -> None:
    """A third copy of the weights would be 1.7 GB for CLIP ViT-L. The model itself can still be trained."""
    model = attached(0.6)
    teacher = dense_teacher(model)
    assert (teacher.pruning, teacher.training) == (None, False)
    weights = dict(model.named_parameters())
    for name, value in teacher.named_parameters():
        assert value.data_ptr() == weights[name].data_ptr()
        assert not value.requires_grad
        assert weights[name].requires_grad
    batch = collate(samples)
    with torch.no_grad():
        dense, pruned = (each(**batch).trace["vision"][-1].left for each in (teacher, model))
    assert min(dense) == 37 > max(pruned)


def test_the_learning_rate_is_that_of_the_student_and_not_of_one_before_it(session, settings, monkeypatch) -> None:
    """A comparison uses one session for all methods, and only some of them allocate."""
    settings = settings.model_copy(update={"steps": 1, "method": "random"})
    session.allocation.append(AllocationTrial(embedding_scale=1, rise=1, text_scale=1, loss=9.0, threshold_scale=1))
    monkeypatch.setattr(compress_model, "output_loss", lambda *_: 0.2)
    compress_model.compress_model(session, settings, strict=False)
    assert [point.learning_rate for point in session.training] == [default_rate(session.model.widths["vision"], 0.2)]
    given = settings.model_copy(update={"learning_rate": 0.5})
    compress_model.compress_model(session, given, strict=False)
    assert session.training[-1].learning_rate == 0.5


def test_the_student_is_trained_and_the_teacher_is_not(session, settings) -> None:
    """If they shared memory, the targets would change while the student is trained."""
    before = {name: value.clone() for name, value in session.model.named_parameters()}
    compressed = compress_model.compress_model(session, settings)
    assert all(torch.equal(value, before[name]) for name, value in compressed.teacher.named_parameters())
    student = dict(compressed.student.named_parameters())
    assert any(not torch.equal(student[name], value) for name, value in before.items())
    assert compressed.target.is_met(compressed.calibration.gflops)
    assert compressed.settings.threshold_scale == compressed.calibration.threshold_scale


@pytest.mark.parametrize(
    ("steps", "later"), [(0, [CALIBRATION_SAMPLES]), (2, [CALIBRATION_SAMPLES] * 2), (STEPS, [CALIBRATION_SAMPLES] * 3)]
)
def test_there_is_no_calibration_without_need(session, settings, calibrations, steps, later) -> None:
    """One for each allocation uses few samples. After a fine-tune, rounding the weights to float16 needs one more."""
    compressed = compress_model.compress_model(session, settings.model_copy(update={"steps": steps}))
    assert calibrations == [1] * TRIALS + later
    assert compressed.target.is_met(compressed.calibration.gflops)


def test_the_budget_is_met_on_all_validation_samples(session, settings, calibrations, monkeypatch) -> None:
    """If a calibration used a part of the samples, a last one uses all of them."""
    monkeypatch.setattr(compress_model, "CALIBRATION_SAMPLES", 2)
    compressed = compress_model.compress_model(session, settings.model_copy(update={"steps": 0}))
    assert calibrations == [1] * TRIALS + [2, None]
    assert compressed.target.is_met(compressed.calibration.gflops)


class Stages(ProgressReporter):
    """Records the names of stages, the messages and the expected times."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.messages: list[str] = []
        self.expected: list[float] = []
        self.planned: list[str] = []

    def plan(self, stages: Sequence[PlannedStage]) -> None:
        """Record the names of the plan."""
        self.planned = [planned.title for planned in stages]

    def message(self, text: str) -> None:
        """Record a message."""
        self.messages.append(text)

    def start(self, stage: str, total: int) -> None:
        """Record a name."""
        self.names.append(stage)

    def expect(self, seconds: float) -> None:
        """Record the time left."""
        self.expected.append(seconds)


def test_every_stage_has_its_own_name_and_the_time_is_announced(session, settings) -> None:
    """Calibration runs three times, the last time after the weights are rounded. Each step reports the time left."""
    stages = Stages()
    session.progress = Forecast(stages)
    compress_model.compress_model(session, settings)
    assert len(stages.names) == len(set(stages.names))
    assert stages.names[1:] == [title for title in stages.planned if title in stages.names]
    assert sum(name.startswith("Calibrating") for name in stages.names) == 3
    assert sum(name.startswith("Trying allocation") for name in stages.names) == TRIALS
    (announced,) = [text for text in stages.messages if text.startswith("Everything takes about")]
    assert f"{STEPS} steps" in announced
    assert len(stages.expected) > STEPS
    assert all(seconds > 0 for seconds in stages.expected)


def test_several_processes_need_less_time(session, settings, monkeypatch) -> None:
    """Each has a part of the samples, but all of the optimizer's work; the main process alone times and saves."""
    student, teacher = prunable_student(session.model, "madtp"), dense_teacher(session.model)
    target = resolve(settings.gflops_budget, 1.0)
    plan = TrainingPlan(4, 4, {4: 4})
    pace = Pace(dense=1.0, pruned=1.0, trained=1.0, dense_answer=1.0, pruned_answer=1.0, optimizer=10.0)
    seconds = []
    for number in (1, 2):
        monkeypatch.setattr(processes, "count", lambda number=number: number)
        compression = Compression(session, student, teacher, target, plan)
        remaining = RemainingTime(4, 0, 1.0, pace.student_step(processes.most_of(2)), 0.0)
        stages = announcement.planned_stages(compression, pace, 4, remaining)
        seconds.append({stage.title: stage.seconds for stage in stages})
    one, two = seconds
    for title in ("Trying allocation 1 of 7", "Validating after step 4", "Evaluating the pruned model"):
        assert two[title] == one[title] / 2 > 0
    assert (one["Fine-tuning"], two["Fine-tuning"]) == (4 * (2 * 3 + 10), 4 * (3 + 10))
    assert two["Saving"] == one["Saving"]


def test_without_fine_tuning_the_time_is_announced_too(session, settings) -> None:
    """Calibration, evaluation and timing of a large model take long enough."""
    stages = Stages()
    session.progress = Forecast(stages)
    compress_model.compress_model(session, settings.model_copy(update={"steps": 0}))
    (announced,) = [text for text in stages.messages if "take about" in text]
    assert announced.startswith("Calibration and the measurement of the result take about")
    assert set(stages.names[1:]) <= set(stages.planned)
    assert {"Evaluating the dense model", "Evaluating the pruned model", "Saving"} <= set(stages.planned)
