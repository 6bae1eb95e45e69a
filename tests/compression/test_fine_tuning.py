"""Fine-tuning keeps the best late state, and the dense model is run once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from madtp_cli import config
from madtp_cli.compression import fine_tuning
from madtp_cli.compression.budget import feasible_budget
from madtp_cli.compression.compress_model import compress_model
from madtp_cli.compression.fine_tuning import FineTune
from madtp_cli.compression.optimizers import Schedule
from madtp_cli.compression.student import dense_teacher, prunable_student
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.evaluation import run
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter

STEPS = 10


@pytest.fixture
def settings() -> config.CompressSettings:
    """A few steps on few samples."""
    values = {"gflops_budget": "0.7", "limit": 4, "batch_size": 2, "steps": STEPS, "device": "cpu"}
    return config.resolve(values, None, {})


@pytest.fixture
def session(checkpoint: Path, settings: config.CompressSettings) -> Session:
    """A tiny BLIP and four pairs of each split."""
    return Session.open(checkpoint, settings, ProgressReporter())


@pytest.mark.parametrize("qualities", [(80.0, 70.0), (70.0, 80.0), (80.0, 80.0)])
def test_the_best_late_state_is_kept(session, settings, monkeypatch, qualities) -> None:
    """Of equally good states the later one is kept, because it was trained longer."""
    states: list[dict[str, torch.Tensor]] = []

    def quality(session: Session, student: Prunable, dense: Any) -> float:
        states.append({name: value.clone() for name, value in student.state_dict().items()})
        return qualities[len(states) - 1]

    monkeypatch.setattr(fine_tuning, "validation_quality", quality)
    student, teacher = prunable_student(session.model, settings.method), dense_teacher(session.model)
    target = feasible_budget(session, student, settings.gflops_budget)
    first = Calibration(0.1, target.gflops, ())
    schedule = Schedule(STEPS, 1e-3, 1e-3)
    given = {"session": session, "student": student, "teacher": teacher, "target": target, "first": first}
    calibration = FineTune(**given, schedule=schedule, samples=4).train()
    kept = states[0] if qualities[0] > qualities[1] else states[1]
    assert len(states) == 2
    assert any(not torch.equal(states[0][name], states[1][name]) for name in kept)
    assert all(torch.equal(value, kept[name]) for name, value in student.state_dict().items())
    assert calibration is not None
    assert target.is_met(calibration.gflops)


def test_the_dense_model_runs_once_over_the_validation_samples(session, settings, monkeypatch) -> None:
    """Without labels, each state is compared with the dense model, whose answers do not change."""
    session.labelled = False
    models: list[str] = []
    run_split = run.run_split

    def recorded(session: Session, model: Prunable, *arguments: Any):
        models.append("pruned" if model.pruning else "dense")
        return run_split(session, model, *arguments)

    monkeypatch.setattr(run, "run_split", recorded)
    compress_model(session, settings)
    assert models == ["pruned", "dense", "pruned"]
