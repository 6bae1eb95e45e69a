"""From a checkpoint to a pruned student: what is kept in memory, which state stays, how often it is calibrated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from madtp_cli import config, tuning, workbench
from madtp_cli.budget import Budget
from madtp_cli.distill import Schedule
from madtp_cli.listener import Listener
from madtp_cli.models.prunable import Prunable
from madtp_cli.tuning import CALIBRATION_SAMPLES
from madtp_cli.workbench import Workbench

STEPS = 10


@pytest.fixture
def bench(checkpoint: Path) -> Workbench:
    """A tiny BLIP and four pairs of each split."""
    given = {"gflops_budget": "0.7", "limit": 4, "batch_size": 2, "steps": STEPS, "device": "cpu"}
    return Workbench.open(checkpoint, config.resolve(given, None, {}), Listener())


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """On how many samples the knob is looked for, each time."""
    asked: list[int | None] = []
    calibrated = tuning.calibrated

    def watched(bench: Workbench, student: Prunable, target: Budget, samples: int | None, *more: Any, **named: Any):
        asked.append(samples)
        return calibrated(bench, student, target, samples, *more, **named)

    monkeypatch.setattr(tuning, "calibrated", watched)
    return asked


def test_the_teacher_is_the_dense_model_in_the_same_memory(attached, collate, samples) -> None:
    """A third copy of the weights is 1.7 GB of a CLIP ViT-L; the model itself may still learn."""
    model = attached(0.6)
    teacher = tuning.dense_copy(model)
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


def test_a_student_learns_beside_a_teacher_that_stands_still(bench) -> None:
    """They must not share memory, or the teacher would learn what it teaches."""
    before = {name: value.clone() for name, value in bench.model.named_parameters()}
    pruned = tuning.prune(bench, bench.settings)
    assert all(torch.equal(value, before[name]) for name, value in pruned.teacher.named_parameters())
    student = dict(pruned.student.named_parameters())
    assert any(not torch.equal(student[name], value) for name, value in before.items())
    assert pruned.target.is_met(pruned.calibration.gflops)
    assert pruned.settings.knob == pruned.calibration.knob


@pytest.mark.parametrize("qualities", [(80.0, 70.0), (70.0, 80.0), (80.0, 80.0)])
def test_the_best_late_state_stays(bench, monkeypatch, qualities) -> None:
    """Of states that are as good the later one, which has learned more; the last one is not copied to be kept."""
    states: list[dict[str, torch.Tensor]] = []

    def judged(bench: Workbench, student: Prunable, answered: Any) -> float:
        states.append({name: value.clone() for name, value in student.state_dict().items()})
        return qualities[len(states) - 1]

    monkeypatch.setattr(tuning, "_validated", judged)
    student = tuning.attached(bench.model, bench.settings)
    target = tuning.feasible_budget(bench, student, "0.7")
    teacher = tuning.dense_copy(bench.model)
    found = tuning.fine_tuned(bench, student, teacher, target, 4.0, Schedule(STEPS, 1e-3, 1e-3), 4)
    kept = states[0] if qualities[0] > qualities[1] else states[1]
    assert len(states) == 2
    assert any(not torch.equal(states[0][name], states[1][name]) for name in kept)
    assert all(torch.equal(value, kept[name]) for name, value in student.state_dict().items())
    assert found is not None
    assert target.is_met(found.gflops)


def test_the_dense_model_answers_the_validation_samples_once(bench, monkeypatch) -> None:
    """Where labels do not count each state is compared with it, and its answers stay the same."""
    bench.labelled = False
    seen: list[str] = []
    run = workbench.Workbench.run

    def watched(self: Workbench, model: Prunable, *given: Any):
        seen.append("pruned" if model.pruning else "dense")
        return run(self, model, *given)

    monkeypatch.setattr(workbench.Workbench, "run", watched)
    tuning.prune(bench, bench.settings)
    assert seen == ["pruned", "dense", "pruned"]


@pytest.mark.parametrize(
    ("steps", "rest"), [(0, [CALIBRATION_SAMPLES]), (2, [CALIBRATION_SAMPLES]), (STEPS, [CALIBRATION_SAMPLES] * 2)]
)
def test_no_sample_is_calibrated_on_twice_for_nothing(bench, calibrations, steps, rest) -> None:
    """First on few, to learn where the knob lies; what the last calibration saw whole needs no final one."""
    settings = bench.settings.model_copy(update={"steps": steps})
    pruned = tuning.prune(bench, settings)
    assert calibrations == [1, *rest]
    assert pruned.target.is_met(pruned.calibration.gflops)


def test_the_budget_is_met_on_all_validation_samples(bench, calibrations, monkeypatch) -> None:
    """Where a calibration saw only some of them a last one sees all."""
    monkeypatch.setattr(tuning, "CALIBRATION_SAMPLES", 2)
    pruned = tuning.prune(bench, bench.settings.model_copy(update={"steps": 0}))
    assert calibrations == [1, 2, None]
    assert pruned.target.is_met(pruned.calibration.gflops)
