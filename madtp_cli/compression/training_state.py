"""Save and restore a training, so that a run that was interrupted ends with the same weights to the bit.

There are three kinds of states in the state folder: `training` has what changes in each step; `teacher-0`, `teacher-1`
and so on have the teacher's targets, each those that are new since the one before; `trained` is the result of the
fine-tune. A target depends on the samples of its batch by rounding, so computing it again in another batch would not
give the same bits. Several processes save no targets and no random numbers, and continue with rounding differences.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from madtp_cli import processes
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.compression.distillation import Training
from madtp_cli.compression.threshold_search import Calibration
from madtp_cli.evaluation import run
from madtp_cli.execution.pruning_settings import PruningSettings
from madtp_cli.models.prunable import Prunable
from madtp_cli.reporting.run_parts import AllocationTrial, TrainingPoint

TRAINING, TRAINED = "training", "trained"


def save_training(folder: StateFolder, training: Training, student: Prunable, more: dict[str, Any]) -> None:
    """Save a training between two steps.

    Args:
        folder: The state folder.
        training: The training.
        student: Its student.
        more: What else the rest of the run depends on; calibrations are converted.
    """
    cache = training.teacher_cache
    if processes.count() == 1 and (new := cache.unsaved()):
        folder.save(f"teacher-{cache.saved_parts}", new)
        cache.mark_saved()
    folder.save(
        TRAINING,
        {
            "step": training.step,
            "teacher_parts": cache.saved_parts,
            "student": student.state_dict(),
            "pruning": student.config.madtp,
            "optimizers": [optimizer.state_dict() for optimizer in training.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in training.schedulers],
            "random": _random_states(),
            **{name: asdict(value) if isinstance(value, Calibration) else value for name, value in more.items()},
        },
    )


def restore_training(folder: StateFolder, saved: dict[str, Any], training: Training, student: Prunable) -> None:
    """Bring a new training to a saved state."""
    training.step = saved["step"]
    _restore_student(saved, student)
    for optimizer, state in zip(training.optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    for scheduler, state in zip(training.schedulers, saved["schedulers"], strict=True):
        scheduler.load_state_dict(state)
    for part in range(saved["teacher_parts"]):
        targets = folder.load(f"teacher-{part}")
        if targets is None:
            raise folder.damaged(f"teacher-{part}.pt")
        training.teacher_cache.restore(targets)
    if processes.count() == 1:
        _restore_random(saved["random"])


def save_trained(
    folder: StateFolder,
    student: Prunable,
    calibration: Calibration,
    points: Sequence[TrainingPoint],
    trials: Sequence[AllocationTrial],
) -> None:
    """Save the result of the fine-tune; the states of the training are removed."""
    points_of = [point.model_dump() for point in points]
    folder.save(
        TRAINED,
        {
            "student": student.state_dict(),
            "pruning": student.config.madtp,
            "calibration": asdict(calibration),
            "points": points_of,
            "trials": [trial.model_dump() for trial in trials],
        },
    )
    folder.clear(TRAINED)


def restore_trained(saved: dict[str, Any], student: Prunable) -> Calibration:
    """Bring a student to the result of the fine-tune, and return its calibration."""
    _restore_student(saved, student)
    found = calibration(saved["calibration"])
    run.set_threshold_scale(student, found.threshold_scale)
    return found


def _restore_student(saved: dict[str, Any], student: Prunable) -> None:
    """Bring a student to the saved weights and pruning settings."""
    student.attach(PruningSettings(**saved["pruning"]))
    student.load_state_dict(saved["student"])


def calibration(saved: dict[str, Any]) -> Calibration:
    """Return a calibration that was saved as a dict."""
    return Calibration(**saved)


def threshold_scale(student: Prunable) -> float:
    """Return the threshold scale of a student."""
    return student.pruning.threshold_scale if student.pruning else 0.0


def _random_states() -> dict[str, Any]:
    """Return the states of the global random numbers. The package uses none of numpy's."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def _restore_random(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
