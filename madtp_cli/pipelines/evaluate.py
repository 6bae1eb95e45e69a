"""madtp eval: measure the quality of a checkpoint on labelled samples."""

from __future__ import annotations

import time
from pathlib import Path

from madtp_cli import processes
from madtp_cli.checkpoint.locating import locate
from madtp_cli.compression.student import dense_teacher
from madtp_cli.config import EvalSettings
from madtp_cli.errors import InputError, UsageError
from madtp_cli.evaluation import batching, planning, sample_costs, sample_files, source_model, timing
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.index_compatibility import index_part
from madtp_cli.evaluation.quality import agreement_part, change, compared, quality, require_labelled_rows
from madtp_cli.evaluation.report_parts import compute_part, conditions, environment, generation_part, set_budget_part
from madtp_cli.evaluation.run import Measured, measure
from madtp_cli.evaluation.session import Session
from madtp_cli.pipelines import gating, profile
from madtp_cli.pipelines.samples import WITHOUT_PRUNING, write_samples
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import Forecast
from madtp_cli.reporting.schema import EvalReport, GflopsPart, LatencyPart
from madtp_cli.tasks import DenseComparingTask

#: The names of the stages; the second one is only there for a task that matches pairs.
STAGES = ("Evaluating the model", "Matching pairs")
DENSE_STAGES = ("Evaluating the dense model", "Matching pairs with the dense model")


def evaluate(source: Path, settings: EvalSettings, progress: ProgressReporter | None = None) -> EvalReport:
    """Measure the quality and the cost of a checkpoint, dense or pruned, on labelled samples.

    Gates that compare with the dense model, or that are about time, make it measure these as well. So does a task whose
    quality compares the model with the dense one.

    Args:
        source: A checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
        settings: The data, the gates and all other settings, see `config.resolve`.
        progress: Receives the progress.

    Raises:
        MadtpError: A subclass with its exit code.
    """
    started = time.monotonic()
    processes.start(settings.device)
    processes.from_main(lambda: sample_files.check(settings.samples_out))
    session, loaded = open_models(source, settings, Forecast.of(progress))
    session.progress.plan(planned_stages(session, settings, loaded))
    measured = measure(session, STAGES[0], session.model, settings.split, matching=STAGES[1])
    dense = measured if loaded is None else _measure_dense(session, loaded)
    measured, dense = compared(session, dense, measured), compared(session, dense, dense)
    write_samples(session, measured)
    report = _report(source, session, measured, started)
    if loaded is not None:
        parts = {"change": change(session, dense, measured), "agreement": agreement_part(session, dense, measured)}
        report = report.model_copy(update=parts | {"index": index_part(session, dense, measured)})
    if "times" in _needs(settings):
        report = report.model_copy(update={"latency": _latency(session)})
    report = gating.with_gates(report.model_copy(update={"seconds": time.monotonic() - started}), settings)
    gating.write_junit(report.gates, settings, str(source), report.seconds)
    return report


def open_models(
    source: Path, settings: EvalSettings, progress: ProgressReporter
) -> tuple[Session, sessions.LoadedCheckpoint | None]:
    """Return the session of an evaluation, and the dense model if the quality or a gate compares with it.

    Raises:
        MadtpError: An input or a gate cannot be used.
    """
    session = Session.open(source, settings, progress, [settings.split])
    if not session.labelled:
        raise UsageError(
            f"{source} was not trained on the built-in scenes, so it cannot be evaluated on them.\n"
            "Give --data with labelled samples of its task."
        )
    require_labelled_rows(session)
    gating.require_possible(settings, conditions(session))
    if not session.model.pruning:
        gating.require_pruned(settings, source)
    compares = "dense" in _needs(settings) or _needs_dense(session, settings)
    return session, _load_dense(session, source, settings) if compares else None


def planned_stages(
    session: Session, settings: EvalSettings, loaded: sessions.LoadedCheckpoint | None, *, measured: bool = False
) -> list[PlannedStage]:
    """Return the stages of an evaluation.

    Args:
        session, settings: The session of the run and its settings.
        loaded: The dense model, if the evaluation needs one.
        measured: Whether a batch tells how fast the machine is, instead of a guess.
    """
    stages = planning.evaluation_stages(session, *STAGES, measured=measured)
    if loaded is not None:
        dense = loaded.model.to(session.compute.device)
        stages += planning.evaluation_stages(session, *DENSE_STAGES, dense, measured=measured)
    if settings.samples_out is not None and session.model.pruning:
        titles = (WITHOUT_PRUNING, DENSE_STAGES[1])
        stages += planning.evaluation_stages(session, *titles, dense_teacher(session.model), measured=measured)[:1]
    if "times" in _needs(settings):
        size = min(settings.batch_size, len(batching.rows(session, settings.split)))
        stages += processes.from_main(lambda: profile.planned_stages(session, [size], fvcore_check=False)[-2:])
    return stages


def _needs(settings: EvalSettings) -> set[str | None]:
    """Return what the gates need in addition to the run of the model."""
    return {gate.needs for gate, _ in settings.requested_gates().values()}


def _report(source: Path, session: Session, measured: Measured, started: float) -> EvalReport:
    model = session.model
    pruned = measured.gflops(model).mean() if model.pruning else None
    return EvalReport(
        command="eval",
        checkpoint=str(source),
        task=session.task.name,
        data=session.data.source,
        cut_texts=session.cut_texts,
        set_budget=set_budget_part(session),
        notes=sessions.notes(session),
        quality=quality(session, measured),
        gflops=GflopsPart.of(sample_costs.dense_gflops(session, session.settings.split).mean(), pruned),
        generation=generation_part(session.task, model, measured),
        compute=compute_part(session.compute),
        environment=environment(session.compute.device),
        seconds=time.monotonic() - started,
    )


def dense_checkpoint(source: Path, settings: EvalSettings) -> tuple[Path, EvalSettings]:
    """Return the checkpoint that a pruned one was made from, and how to read it.

    The settings name it. Otherwise its report.json does, and how it was read is in there too.

    Raises:
        UsageError: It is not known, or no longer there.
    """
    if settings.dense is not None:
        return settings.dense, settings
    advice = "Give the checkpoint before pruning with --dense."
    try:
        dense, read = source_model.recorded(source)
    except (InputError, ValueError) as error:
        raise UsageError(f"The dense model of {source} is needed, and no report names it.\n{advice}") from error
    try:
        locate(dense)
    except InputError as error:
        raise UsageError(f"The dense model of {source} is needed, but {dense} does not exist.\n{advice}") from error
    names = [name for name in (*source_model.READING, "tokenizer") if getattr(settings, name) is None]
    return dense, settings.model_copy(update={name: getattr(read, name) for name in names})


def _load_dense(session: Session, source: Path, settings: EvalSettings) -> sessions.LoadedCheckpoint:
    """Load the dense model that the quality or a gate compares with.

    Raises:
        UsageError: It is a checkpoint of another task.
    """
    dense, settings = dense_checkpoint(source, settings)
    settings = settings.model_copy(update={"task": session.task.name, "gflops_budget": None})
    loaded = sessions.load_checkpoint(dense, settings, session.progress)
    if loaded.model.config.task != session.task.name:
        raise UsageError(f"{dense} is a checkpoint for the task {loaded.model.config.task}, not {session.task.name}.")
    return loaded


def _needs_dense(session: Session, settings: EvalSettings) -> bool:
    """Return whether the quality itself compares the model with a dense one, as that of image encoders does."""
    is_dense = session.model.pruning is None and settings.dense is None
    return isinstance(session.task, DenseComparingTask) and not is_dense


def _measure_dense(session: Session, loaded: sessions.LoadedCheckpoint) -> Measured:
    """Run the dense model over the same samples."""
    model = loaded.model.to(session.compute.device)
    return measure(session, DENSE_STAGES[0], model, session.settings.split, matching=DENSE_STAGES[1])


def _latency(session: Session) -> LatencyPart:
    """Time the model, and a pruned one in turns with its weights without pruning."""
    model, settings = session.model, session.settings
    dense, pruned = (dense_teacher(model), model) if model.pruning else (model, None)

    def timed() -> LatencyPart:
        batches = batching.full_batches(session, settings.split, settings.batch_size, timing.BATCHES)
        return timing.latency(dense, pruned, batches, session.compute, progress=session.progress)

    return processes.from_main(timed)
