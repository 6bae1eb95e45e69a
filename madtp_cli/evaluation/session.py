"""The session of a command: a model, its data, and how to compute. It holds data; functions elsewhere use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from madtp_cli import tasks
from madtp_cli.checkpoint import loading as checkpoints
from madtp_cli.checkpoint.loading import LoadedCheckpoint
from madtp_cli.config import PointSettings, RunSettings
from madtp_cli.data import SPLITS, Dataset, class_files, schemas
from madtp_cli.data import read as read_data
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import cut_texts, number_formats
from madtp_cli.evaluation.compute import Batch, ComputeConfig
from madtp_cli.models.prunable import Prunable
from madtp_cli.progress import LOADING, ProgressReporter
from madtp_cli.reporting.run_parts import AllocationTrial, TrainingPoint
from madtp_cli.reporting.schema import CutTextsPart
from madtp_cli.scenes import splits as scenes
from madtp_cli.tasks import Task

#: The `trained_on` record of the checkpoints in `examples/`; only for them the labels of the scenes mean something.
SCENES = "madtp scenes"
#: Samples whose mean cost represents a whole split while a threshold scale is searched.
CALIBRATION_SAMPLES = 256
#: Rows of each split of the built-in scenes that are searched for long texts. All rows of a split have similar texts.
SCENE_ROWS = 256


@dataclass
class Session:
    """The objects that a command works on.

    Attributes:
        model: The loaded model on the device.
        processor: Its image processor and tokenizer.
        task: The task of the checkpoint, prepared for the processor and the data.
        data: The data set.
        compute: Device and number format.
        settings: The settings of the command.
        progress: Receives progress and notes.
        labelled: Whether the labels of the data apply to what the model was trained for.
        checkpoint_notes: What was assumed about the checkpoint, or left out of it.
        stored: Number format of the weights in the checkpoint's file.
        cut_texts: The texts of the data that are longer than the model reads.
        allocation: The allocations that were tried, the chosen one first.
        training: The steps of the fine-tune so far.
        prepared_batches: Batches that `batching` keeps in memory for the next pass, by split and number of rows.
        teacher_targets: Distillation targets of the dense model by sample, see `compression.teacher_cache`.
    """

    model: Prunable
    processor: Any
    task: Task
    data: Dataset
    compute: ComputeConfig
    settings: RunSettings
    progress: ProgressReporter
    labelled: bool
    checkpoint_notes: tuple[str, ...] = ()
    stored: torch.dtype = torch.float32
    cut_texts: CutTextsPart = field(default_factory=CutTextsPart)
    prepared_batches: dict[str, list[Batch]] = field(default_factory=dict)
    teacher_targets: dict[bytes, Any] = field(default_factory=dict)
    allocation: list[AllocationTrial] = field(default_factory=list)
    training: list[TrainingPoint] = field(default_factory=list)

    @classmethod
    def open(
        cls, source: Path, settings: RunSettings, progress: ProgressReporter, splits: Sequence[str] = SPLITS
    ) -> Session:
        """Load a checkpoint and read its data.

        Args:
            source: A checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
            settings: The settings of the command.
            progress: Receives progress and notes.
            splits: The splits to read.

        Raises:
            CheckpointError, DataError, UsageError: An input cannot be used.
        """
        compute = ComputeConfig.of(settings.device, settings.dtype)
        _require_task(settings)
        loaded = load_checkpoint(source, settings, progress)
        model, processor = loaded.model, loaded.processor
        if settings.task not in (None, model.config.task):
            raise UsageError(
                f"{source} is a checkpoint for the task {model.config.task}, not for {settings.task}.\n"
                f"Leave out --task, or give a checkpoint for {settings.task}."
            )
        progress.start("Reading the data", 0)
        data = _read_data(model.config.task, settings, splits)
        progress.finish()
        for note in data.notes:
            progress.message(note)
        task = _prepared_task(model, processor, data, settings)
        model = model.to(compute.device)
        if isinstance(task, tasks.PreparingTask):
            task.prepare(model)
        looked_at = settings.limit if settings.data else min(settings.limit or SCENE_ROWS, SCENE_ROWS)
        found = cut_texts.find(task, data, processor, looked_at, progress)
        slow = number_formats.warning(compute.dtype, compute.device)
        for note in [*cut_texts.note(found, cut_texts.limits(task, processor)), *([slow] if slow else [])]:
            progress.message(note)
        parts = (model, processor, task, data, compute, settings, progress, _is_labelled(model, task, settings))
        return cls(*parts, checkpoint_notes=loaded.notes, stored=loaded.stored, cut_texts=found)


def _is_labelled(model: Prunable, task: Task, settings: RunSettings) -> bool:
    """Return whether the labels of the data apply to a model, or the task needs none."""
    return settings.data is not None or model.config.trained_on == SCENES or isinstance(task, tasks.DenseComparingTask)


def _require_task(settings: RunSettings) -> None:
    """Refuse a task that does not exist before the checkpoint is loaded."""
    if settings.task is not None:
        tasks.get(settings.task)


def _prepared_task(model: Prunable, processor: Any, data: Dataset, settings: RunSettings) -> Task:
    """Return the task of a model, with what the user said about it."""
    return tasks.prepared(
        model.config.task,
        processor,
        data,
        settings.k_test,
        config=model.config,
        match_score=settings.match_score,
        templates=class_files.templates(settings.templates) if settings.templates else (),
    )


def _read_data(task: str, settings: RunSettings, splits: Sequence[str]) -> Dataset:
    """Return the user's data or, if no path is given, the built-in scenes."""
    if settings.data is None:
        return scenes.read(task, splits)
    schema = tasks.get(task).schema
    data = read_data(settings.data, schema, splits, settings.image_root, task=task)
    if schemas.get(schema).classes:
        return class_files.with_class_names(data, settings.classes)
    if settings.classes is not None:
        raise UsageError(f"The task {task} has no classes.\nLeave out --classes.")
    return data


def load_checkpoint(source: Path, settings: RunSettings, progress: ProgressReporter) -> LoadedCheckpoint:
    """Load a checkpoint, and report what was assumed about it."""
    torch.manual_seed(settings.seed)
    progress.start(LOADING, 0)
    loaded = checkpoints.load(
        source,
        tokenizer=settings.tokenizer,
        head_width=settings.head_width,
        activation=settings.activation,
        weights=settings.weights,
        match_token=settings.match_token,
        prompt=settings.prompt,
        task=settings.task,
        gflops_budget=settings.gflops_budget if isinstance(settings, PointSettings) else None,
    )
    progress.finish()
    for note in loaded.notes:
        progress.message(note)
    return loaded


def notes(session: Session) -> list[str]:
    """Return the notes of a session that belong in its report."""
    slow = number_formats.warning(session.compute.dtype, session.compute.device)
    sentences = [*session.checkpoint_notes, *session.data.notes, *session.settings.notes, *([slow] if slow else [])]
    sentences += cut_texts.note(session.cut_texts, cut_texts.limits(session.task, session.processor))
    if not session.labelled:
        sentences.append(
            "The checkpoint was not trained on the built-in scenes, so the quality is its agreement with the dense "
            "model. The same threshold scale can cost more or less on your own data. "
            "Give --data to calibrate on it."
        )
    elif session.settings.data is None and session.model.config.trained_on != SCENES:
        sentences.append(
            "The checkpoint was not trained on the built-in scenes, on which it was measured. The same threshold scale "
            "can cost more or less on your own images, and their search results can differ more. Give --data to "
            "calibrate on them."
        )
    return sentences
