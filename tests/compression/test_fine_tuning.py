"""From a checkpoint to a pruned student: what is kept in memory, which state stays, how often it is calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from madtp_cli import config
from madtp_cli.compression import fine_tuning
from madtp_cli.compression.budget import Budget
from madtp_cli.compression.distillation import Schedule
from madtp_cli.compression.fine_tuning import CALIBRATION_SAMPLES
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter

STEPS = 10


@pytest.fixture
def session(checkpoint: Path) -> Session:
    """A tiny BLIP and four pairs of each split."""
    given = {"gflops_budget": "0.7", "limit": 4, "batch_size": 2, "steps": STEPS, "device": "cpu"}
    return Session.open(checkpoint, config.resolve(given, None, {}), ProgressReporter())


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """On how many samples the knob is looked for, each time."""
    asked: list[int | None] = []
    calibrated = fine_tuning.calibrated

    def watched(session: Session, student: Prunable, target: Budget, samples: int | None, *more: Any, **named: Any):
        asked.append(samples)
        return calibrated(session, student, target, samples, *more, **named)

    monkeypatch.setattr(fine_tuning, "calibrated", watched)
    return asked


def test_the_teacher_is_the_dense_model_in_the_same_memory(attached, collate, samples) -> None:
    """A third copy of the weights is 1.7 GB of a CLIP ViT-L; the model itself may still learn."""
    model = attached(0.6)
    teacher = fine_tuning.dense_copy(model)
    assert (teacher.pruning, teacher.training) == (None, False)
    own = dict(model.named_parameters())
    for name, value in teacher.named_parameters():
        assert value.data_ptr() == own[name].data_ptr()
        assert not value.requires_grad
        assert own[name].requires_grad
    batch = collate(samples)
    with torch.no_grad():
        dense, pruned = (each(**batch).trace["vision"][-1].left for each in (teacher, model))
    assert min(dense) == 37 > max(pruned)


def test_a_student_learns_beside_a_teacher_that_stands_still(session) -> None:
    """They must not share memory, or the teacher would learn what it teaches."""
    before = {name: value.clone() for name, value in session.model.named_parameters()}
    pruned = fine_tuning.prune(session, session.settings)
    assert all(torch.equal(value, before[name]) for name, value in pruned.teacher.named_parameters())
    student = dict(pruned.student.named_parameters())
    assert any(not torch.equal(student[name], value) for name, value in before.items())
    assert pruned.target.is_met(pruned.calibration.gflops)
    assert pruned.settings.threshold_scale == pruned.calibration.threshold_scale


@pytest.mark.parametrize("qualities", [(80.0, 70.0), (70.0, 80.0), (80.0, 80.0)])
def test_the_best_late_state_stays(session, monkeypatch, qualities) -> None:
    """Of states that are as good the later one, which has learned more; the last one is not copied to be kept."""
    states: list[dict[str, torch.Tensor]] = []

    def result(session: Session, student: Prunable, answered: Any) -> float:
        states.append({name: value.clone() for name, value in student.state_dict().items()})
        return qualities[len(states) - 1]

    monkeypatch.setattr(fine_tuning, "_validated", result)
    student = fine_tuning.attached(session.model, session.settings)
    target = fine_tuning.feasible_budget(session, student, "0.7")
    teacher = fine_tuning.dense_copy(session.model)
    found = fine_tuning.fine_tuned(session, student, teacher, target, 4.0, Schedule(STEPS, 1e-3, 1e-3), 4)
    kept = states[0] if qualities[0] > qualities[1] else states[1]
    assert len(states) == 2
    assert any(not torch.equal(states[0][name], states[1][name]) for name in kept)
    assert all(torch.equal(value, kept[name]) for name, value in student.state_dict().items())
    assert found is not None
    assert target.is_met(found.gflops)


def test_the_dense_model_answers_the_validation_samples_once(session, monkeypatch) -> None:
    """Where labels do not count each state is compared with it, and its answers stay the same."""
    session.labelled = False
    seen: list[str] = []
    run = sessions.Session.run

    def watched(self: Session, model: Prunable, *given: Any):
        seen.append("pruned" if model.pruning else "dense")
        return run(self, model, *given)

    monkeypatch.setattr(sessions.Session, "run", watched)
    fine_tuning.prune(session, session.settings)
    assert seen == ["pruned", "dense", "pruned"]


@pytest.mark.parametrize(
    ("steps", "rest"), [(0, [CALIBRATION_SAMPLES]), (2, [CALIBRATION_SAMPLES]), (STEPS, [CALIBRATION_SAMPLES] * 2)]
)
def test_no_sample_is_calibrated_on_twice_for_nothing(session, calibrations, steps, rest) -> None:
    """First on few, to learn where the knob lies; what the last calibration saw whole needs no final one."""
    settings = session.settings.model_copy(update={"steps": steps})
    pruned = fine_tuning.prune(session, settings)
    assert calibrations == [1, *rest]
    assert pruned.target.is_met(pruned.calibration.gflops)


def test_the_budget_is_met_on_all_validation_samples(session, calibrations, monkeypatch) -> None:
    """Where a calibration saw only some of them a last one sees all."""
    monkeypatch.setattr(fine_tuning, "CALIBRATION_SAMPLES", 2)
    pruned = fine_tuning.prune(session, session.settings.model_copy(update={"steps": 0}))
    assert calibrations == [1, 2, None]
    assert pruned.target.is_met(pruned.calibration.gflops)
