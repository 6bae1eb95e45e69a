"""The allocation of the budget over the places where tokens are pruned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from madtp_cli import config
from madtp_cli.compression import allocation, compress_model, stage_titles
from madtp_cli.compression.budget import Budget, feasible_budget
from madtp_cli.compression.remaining_time import Pace
from madtp_cli.compression.student import dense_teacher, prunable_student
from madtp_cli.evaluation import sample_costs
from madtp_cli.evaluation.session import Session
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.methods import madtp
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import ProgressReporter

EXAMPLE = Path(__file__).parents[2] / "examples/clip.pt"


@pytest.fixture
def session() -> Session:
    """CLIP on a few built-in scenes."""
    torch.manual_seed(0)
    settings = config.resolve({"gflops_budget": "0.3", "limit": 8, "batch_size": 4, "steps": 0}, None, {})
    return Session.open(EXAMPLE, settings, ProgressReporter())


def models_and_budget(session: Session) -> tuple[Prunable, Prunable, Budget]:
    """Return a student before its allocation, its teacher and the budget of the settings."""
    assert isinstance(session.settings, config.CompressSettings)
    student = prunable_student(session.model, "madtp")
    return student, dense_teacher(session.model), feasible_budget(session, student, session.settings.gflops_budget)


def pruning_of(student: Prunable) -> PruningSettings:
    """Return the pruning settings of a student."""
    assert student.pruning is not None
    return student.pruning


def test_no_allocation_is_clearly_closer_to_the_dense_model(session) -> None:
    """All trials cost the same, so the loss decides. The student has the factors and the scale of the best one."""
    student, teacher, target = models_and_budget(session)
    found = allocation.allocate(session, student, teacher, target, 8)
    trials = session.allocation
    assert len(trials) == allocation.trials(student) == 7
    losses = [trial.loss for trial in trials]
    assert None not in losses
    assert losses[1:] == sorted(losses[1:])
    assert min(losses) >= allocation.CLEARLY * losses[0]
    assert abs(found.gflops - target.gflops) < 0.03 * target.gflops
    assert pruning_of(student).embedding_scale == trials[0].embedding_scale
    assert pruning_of(student).threshold_scale == found.threshold_scale == trials[0].threshold_scale
    scales = pruning_of(student).scales["vision"]
    assert [scale > 0 for scale in scales] == [True, False] * 4
    assert scales[6] / scales[0] == pytest.approx(trials[0].rise)
    assert {madtp.PRESET.embedding, madtp.PRESET.embedding / 4} <= {trial.embedding_scale for trial in trials}
    assert {trial.text_scale for trial in trials} == {madtp.PRESET.texts, madtp.PRESET.texts / 2, 0.0}
    assert pruning_of(student).scales["text"] == [trials[0].text_scale, 0.0] * 2


def test_a_slightly_better_allocation_is_not_chosen(session, monkeypatch) -> None:
    """The difference could be one of the samples; the preset is the first trial."""
    student, teacher, target = models_and_budget(session)
    losses = iter([5.0, 4.6, 6.0, 5.0, 5.0, 4.6, 7.0])
    monkeypatch.setattr(allocation, "output_loss", lambda *_: next(losses))
    allocation.allocate(session, student, teacher, target, 8)
    assert [trial.loss for trial in session.allocation] == [5.0, 4.6, 4.6, 5.0, 5.0, 6.0, 7.0]
    assert pruning_of(student).embedding_scale == madtp.PRESET.embedding


def test_an_allocation_that_misses_the_budget_is_not_chosen(session, monkeypatch) -> None:
    """It has no loss, because another cost would make it better or worse."""
    student, teacher, target = models_and_budget(session)
    monkeypatch.setattr(allocation, "EMBEDDING_FACTORS", (1.0, 0.0))
    monkeypatch.setattr(allocation, "RISE_FACTORS", ())
    monkeypatch.setattr(allocation, "TEXT_FACTORS", ())
    floors = [sample_costs.floor_gflops(session, student, "val")]
    student.attach(replace(pruning_of(student), embedding_scale=0.0))
    floors.append(sample_costs.floor_gflops(session, student, "val"))
    # Without pruning before the first block, the model cannot become this cheap.
    lower = replace(target, gflops=(floors[0] + floors[1]) / 2)
    allocation.allocate(session, student, teacher, lower, 8)
    assert [trial.loss is None for trial in session.allocation] == [False, True]
    assert pruning_of(student).embedding_scale == madtp.PRESET.embedding


def test_other_methods_and_compressed_checkpoints_keep_their_allocation(session) -> None:
    """A baseline prunes where its paper does; a checkpoint is fine-tuned with the allocation that it has."""
    assert allocation.needs_allocation(prunable_student(session.model, "madtp"), None)
    assert not allocation.needs_allocation(prunable_student(session.model, "tome"), None)
    compressed = compress_model.compress_model(session, session.settings).student
    assert not allocation.needs_allocation(prunable_student(compressed, "madtp"), compressed.pruning)


def test_texts_stay_whole_if_that_is_closer_to_the_dense_model(session, monkeypatch) -> None:
    """The factor of the texts is tried last, with the best factors of the image tower."""
    student, teacher, target = models_and_budget(session)
    losses = iter([5.0, 4.0, 6.0, 5.0, 5.0, 3.0, 7.0])
    monkeypatch.setattr(allocation, "output_loss", lambda *_: next(losses))
    allocation.allocate(session, student, teacher, target, 8)
    best = session.allocation[0]
    assert (best.embedding_scale, best.text_scale) == (madtp.PRESET.embedding / 4, 0.0)
    assert pruning_of(student).scales["text"] == [0.0] * 4


def test_an_image_encoder_alone_has_no_text_to_prune(session) -> None:
    """Its trials are those of the image tower."""
    settings = config.resolve({"gflops_budget": "0.3", "limit": 8, "task": "embedding"}, None, {})
    images = Session.open(EXAMPLE, settings, ProgressReporter())
    assert allocation.trials(prunable_student(images.model, "madtp")) == 5


def test_the_stages_are_announced(session) -> None:
    """Each trial is a stage of its own."""
    pace = Pace(dense=1.0, pruned=0.2, trained=0.2, dense_answer=1.0, pruned_answer=0.2, optimizer=0.0)
    stages = list(allocation.planned_stages(prunable_student(session.model, "madtp"), 10, pace))
    assert [stage.title for stage in stages] == [stage_titles.allocation(number, 7) for number in range(1, 8)]
    assert stages[0].seconds > stages[1].seconds > 0
