"""The plan of a run (--dry-run): read and check everything, time one batch, estimate the rest, and write nothing.

A plan ends with the error with which the run would end at its start. `plan` builds the report for any command that
has a session; the functions for the commands decide the stages.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from madtp_cli import exporters, processes
from madtp_cli.checkpoint import number_format
from madtp_cli.checkpoint.atomic_write import check_output_file
from madtp_cli.checkpoint.state_folder import StateFolder, require_unlocked
from madtp_cli.compression import announcement, compress_model, stage_titles
from madtp_cli.compression.announcement import Compression, TrainingPlan
from madtp_cli.compression.budget import feasible_budget, upper_end
from madtp_cli.compression.student import dense_teacher, prunable_student
from madtp_cli.compression.teacher_cache import MOST_BYTES
from madtp_cli.config import CompressSettings, EvalSettings, PointSettings, RunSettings, choices
from madtp_cli.evaluation import batching, run_record, sample_files
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.memory import peak_memory
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.pipelines import compress as compressing
from madtp_cli.pipelines import evaluate as evaluation
from madtp_cli.pipelines import export as exporting
from madtp_cli.pipelines import resuming
from madtp_cli.pipelines.keyword_arguments import to_reporter, to_settings
from madtp_cli.pipelines.profile import FVCORE, planned_stages, require_consistent
from madtp_cli.pipelines.profile_without_data import profile_without_data
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.reporting.plan import PlanReport, PlanStage

#: Two models, gradients, momentum and the best state so far, each of the size of the weights.
TRAINING_COPIES = 5
#: Forward passes that take as long as the fvcore count of one sample.
FVCORE_PASSES = 20
#: Bytes of a float32 weight.
BYTES_PER_WEIGHT = 4


def from_keywords(
    command: str, source: Path, keywords: Mapping[str, object], progress: bool | ProgressReporter
) -> PlanReport:
    """Plan "compress" or "eval" for the keyword arguments of a Python function.

    Raises:
        UsageError: It is another command; or as the functions for the commands.
    """
    reporter = to_reporter(progress)
    choices.require("command", command, ("compress", "eval"))
    if command == "compress":
        return compress(source, to_settings(CompressSettings, keywords), reporter)
    return evaluate(source, to_settings(EvalSettings, keywords), reporter)


def compress(source: Path, settings: CompressSettings, progress: ProgressReporter | None = None) -> PlanReport:
    """Plan `madtp compress`. Its arguments and errors are those of `pipelines.compress.compress`."""
    processes.require_one("compress --dry-run")
    output = settings.output_for(source)
    compressing.check_outputs(source, settings)
    require_unlocked(output)
    session = compressing.open_session(source, settings, progress or ProgressReporter())
    resumed = _resumed(source, output, session, settings)
    saved_in = number_format.FORMATS.get(settings.save_dtype, session.stored)
    number_format.require_range(session.model, saved_in)
    student = prunable_student(session.model, settings.method)
    target = feasible_budget(session, student, settings.gflops_budget)
    training = compress_model.planned_training(session, settings)
    upper = upper_end(settings.gflops_budget, target.dense)
    stages = compress_stages(Compression(session, student, dense_teacher(session.model), target, training, upper))
    memory = compress_bytes(session, training, (upper or target).share)
    disk = number_format.weight_bytes(student, saved_in)
    report = plan("compress", source, session, stages, memory, output, disk)
    return report.model_copy(update={"gflops": target.gflops, "notes": [*report.notes, *resumed]})


def _resumed(source: Path, output: Path, session: Session, settings: CompressSettings) -> list[str]:
    """Return a sentence about what `--resume` finds, if it finds anything.

    Raises:
        ResumeError: What it finds is of another run.
    """
    if not settings.resume:
        return []
    record, state = run_record.record(source, session, settings), StateFolder(output)
    if resuming.finished(output, settings, record):
        return [f"{output} already has the result of these settings, so the run would compute nothing."]
    if resuming.continued(state, settings, record):
        return [f"The run would continue from the state in {state.path}; the times are those of a whole run."]
    return []


def compress_bytes(session: Session, training: TrainingPlan | None, share: float) -> int:
    """Return the estimated memory of a compression to a share of the dense GFLOPs, in bytes."""
    weights = _weight_bytes(session.model)
    if training is None:
        return 2 * weights
    used = training.samples or len(batching.rows(session, "train"))
    activations = _saved_bytes(session) * session.settings.batch_size * (1.0 if session.model.pruning else share)
    return int(TRAINING_COPIES * weights + activations) + min(MOST_BYTES, used * _target_bytes(session))


def evaluate(source: Path, settings: EvalSettings, progress: ProgressReporter | None = None) -> PlanReport:
    """Plan `madtp eval`. Its arguments and errors are those of `pipelines.evaluate.evaluate`."""
    processes.require_one("eval --dry-run")
    sample_files.check(settings.samples_out)
    session, dense = evaluation.open_models(source, settings, progress or ProgressReporter())
    stages = evaluation.planned_stages(session, settings, dense, measured=True)
    return plan("eval", source, session, stages, _inference_bytes(session))


def profile(
    source: Path | None,
    settings: RunSettings,
    progress: ProgressReporter | None = None,
    *,
    arch: str | None = None,
    text_tokens: int | None = None,
    batch_sizes: Sequence[int] = (),
    fvcore_check: bool = True,
) -> PlanReport:
    """Plan `madtp profile`. Its arguments and errors are those of `pipelines.profile.profile`."""
    processes.require_one("profile")
    progress = progress or ProgressReporter()
    require_consistent(source, arch, text_tokens, settings, batch_sizes)
    if source is None or text_tokens is not None:
        return _profile_without_data(source, arch, text_tokens, settings, progress, fvcore_check)
    sample_files.check(settings.samples_out)
    session = Session.open(source, settings, progress, [settings.split])
    stages = planned_stages(session, batch_sizes, fvcore_check)
    return plan("profile", source, session, stages, _inference_bytes(session))


def _profile_without_data(
    source: Path | None,
    arch: str | None,
    text_tokens: int | None,
    settings: RunSettings,
    progress: ProgressReporter,
    fvcore_check: bool,
) -> PlanReport:
    """Plan the profile of one text: the count is so short that the plan makes it, without fvcore."""
    started = time.perf_counter()
    counted = profile_without_data(source, arch, text_tokens, settings, progress, fvcore_check=False)
    seconds = time.perf_counter() - started
    stages = [PlannedStage("Counting", seconds)]
    if fvcore_check:
        stages.append(PlannedStage(FVCORE, FVCORE_PASSES * seconds))
    return PlanReport(
        planned="profile",
        checkpoint=counted.checkpoint,
        task=counted.task,
        data=None,
        samples={},
        output=None,
        stages=_stages(stages),
        seconds=_seconds(stages),
        memory_bytes=BYTES_PER_WEIGHT * counted.parameters,
        disk_bytes=0,
        settings=settings.model_dump(mode="json"),
        notes=counted.notes,
    )


def export(
    source: Path, file: Path, settings: PointSettings, format_name: str | None = None,
    progress: ProgressReporter | None = None, *, overwrite: bool = False,
) -> PlanReport:  # fmt: skip
    """Plan `madtp export`. Its arguments and errors are those of `pipelines.export.export`."""
    processes.require_one("export")
    format_name = format_name or exporters.name_for(file)
    export_format = exporters.get_for(format_name, file)
    check_output_file(file, overwrite)
    loaded = sessions.load_checkpoint(source, settings, progress or ProgressReporter())
    model = loaded.model.float()
    stages = exporting.planned_stages(model, export_format)
    weights = _weight_bytes(model)
    return PlanReport(
        planned="export", checkpoint=str(source), task=model.config.task, data=None, samples={}, output=str(file),
        stages=_stages(stages), seconds=_seconds(stages), memory_bytes=3 * weights, disk_bytes=weights,
        free_disk_bytes=_free_bytes(file), settings=settings.model_dump(mode="json"), notes=[*loaded.notes],
    )  # fmt: skip


def plan(
    command: str,
    source: Path,
    session: Session,
    stages: Sequence[PlannedStage],
    memory_bytes: int,
    output: Path | None = None,
    disk_bytes: int = 0,
) -> PlanReport:
    """Return the plan of a command with a session.

    Args:
        command, source: The command and its checkpoint.
        session: The session of the run, whose inputs were read and checked.
        stages: Estimated seconds of each stage.
        memory_bytes, disk_bytes: Estimated memory, and size of the output.
        output: What would be written.
    """
    splits = [split for split in session.data.splits if len(batching.rows(session, split))]
    return PlanReport(
        planned=command, checkpoint=str(source), task=session.task.name, data=session.data.source,
        samples={split: len(batching.rows(session, split)) for split in splits},
        output=None if output is None else str(output), stages=_stages(stages), seconds=_seconds(stages),
        memory_bytes=memory_bytes, disk_bytes=disk_bytes,
        free_disk_bytes=None if output is None else _free_bytes(output),
        settings=session.settings.model_dump(mode="json"), notes=sessions.notes(session),
    )  # fmt: skip


def compress_stages(compression: Compression) -> list[PlannedStage]:
    """Time one batch, and return the stages of a compression."""
    session, training = compression.session, compression.training
    session.progress.start(stage_titles.ESTIMATING, 0)
    pace = announcement.measure_pace(compression)
    remaining = announcement.remaining_steps(compression, pace, training) if training else None
    session.progress.finish()
    rough = compress_model.rough_samples(session)
    return list(announcement.planned_stages(compression, pace, rough, remaining))


def _stages(stages: Sequence[PlannedStage]) -> list[PlanStage]:
    return [PlanStage(name=stage.title, seconds=stage.seconds) for stage in stages if stage.seconds > 0]


def _seconds(stages: Sequence[PlannedStage]) -> float:
    return sum(stage.seconds for stage in stages)


def _inference_bytes(session: Session) -> int:
    """Return the peak memory of a forward pass of one batch."""
    (batch,) = batching.full_batches(session, session.settings.split, session.settings.batch_size, 1)
    inputs = session.compute.moved(batch)
    return int(peak_memory(session.model, inputs, session.compute) or _weight_bytes(session.model))


def _saved_bytes(session: Session) -> int:
    """Return the bytes of activations that a training step keeps for its backward pass, per sample."""
    (batch,) = batching.full_batches(session, "train", 1, 1)
    weights = {parameter.data_ptr() for parameter in session.model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in weights:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), session.compute.precision():
        session.model(**session.compute.moved(batch))
    return sum(saved.values())


def _target_bytes(session: Session) -> int:
    """Return the bytes of the teacher's outputs that are kept for one training sample."""
    return announcement.target_bytes(session, dense_teacher(session.model))


def _weight_bytes(model: Prunable) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def _free_bytes(path: Path) -> int:
    """Return the free bytes of the disk on which a path would be written."""
    return shutil.disk_usage(next(parent for parent in path.resolve().parents if parent.exists())).free
