"""madtp profile: count the FLOPs of a checkpoint by tower and layer, check them with fvcore, and time the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from madtp_cli import processes
from madtp_cli.compression.student import dense_teacher
from madtp_cli.config import RunSettings
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import batching, run, sample_costs, sample_files, timing
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.evaluation.report_parts import (
    by_tower,
    compute_part,
    environment,
    generation_part,
    layer_parts,
    set_budget_part,
)
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.flops.fvcore_check import count_with_fvcore
from madtp_cli.pipelines.profile_without_data import profile_without_data
from madtp_cli.pipelines.samples import write_samples
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.progress.forecast import Forecast
from madtp_cli.reporting.schema import CheckedGflops, GflopsPart, LatencyPart, ProfileReport
from madtp_cli.tasks import TaskResult

#: Samples that fvcore traces, and how long each takes: seconds, and forward passes of one sample.
FVCORE_SAMPLES, FVCORE_SECONDS, FVCORE_PASSES = 8, 1.0, 10
#: Samples whose forward pass tells how fast a model is.
PROBED_SAMPLES = 4
#: The names of stages.
COUNTING, FVCORE = "Counting tokens", "Counting with fvcore"


def profile(
    source: Path | None,
    settings: RunSettings,
    progress: ProgressReporter | None = None,
    *,
    arch: str | None = None,
    text_tokens: int | None = None,
    batch_sizes: Sequence[int] = (),
    fvcore_check: bool = True,
) -> ProfileReport:
    """Count the GFLOPs of a checkpoint by tower and layer, and compare the formula with fvcore.

    Args:
        source: A checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
        settings: Data, split and limit; the number of tokens that a pruned model keeps depends on the data.
        progress: Receives the progress.
        arch: A published architecture instead of a checkpoint, see `models.architectures`. It needs no data.
        text_tokens: Count one text of this length instead of the data's; for dense models only.
        batch_sizes: Also time the forward passes of these batch sizes.
        fvcore_check: Compare the formula with fvcore, which takes as long as 160 forward passes.

    Raises:
        MadtpError: A subclass with its exit code.
    """
    processes.require_one("profile")
    require_consistent(source, arch, text_tokens, settings, batch_sizes)
    if source is None or text_tokens is not None:
        return profile_without_data(source, arch, text_tokens, settings, Forecast.of(progress), fvcore_check)
    sample_files.check(settings.samples_out)
    session = Session.open(source, settings, Forecast.of(progress), [settings.split])
    session.progress.plan(planned_stages(session, batch_sizes, fvcore_check))
    measured = _measure(session)
    write_samples(session, measured, CALIBRATION_SAMPLES)
    return _report(source, session, measured, batch_sizes, fvcore_check)


def require_consistent(
    source: Path | None, arch: str | None, text_tokens: int | None, settings: RunSettings, batch_sizes: Sequence[int]
) -> None:
    """Raise UsageError if the arguments of `profile` contradict each other."""
    if (source is None) == (arch is None):
        raise UsageError("Give either a checkpoint or --arch, not both.")
    if (source is None or text_tokens is not None) and (batch_sizes or settings.samples_out):
        what = "Timing" if batch_sizes else "--samples-out"
        raise UsageError(
            f"{what} needs samples, so it cannot be used with --arch or --text-tokens.\nLeave out one of them."
        )


def _report(
    source: Path, session: Session, measured: run.Measured, batch_sizes: Sequence[int], fvcore_check: bool
) -> ProfileReport:
    model = session.model
    latency, timing_notes = _time(session, batch_sizes)
    gflops = _gflops(
        session, measured, FVCORE_SAMPLES if fvcore_check else 0
    )  # moves the model to the CPU in float32, so it comes after the timing
    layers = layer_parts(model, measured.counts)
    return ProfileReport(
        command="profile",
        checkpoint=str(source),
        task=session.task.name,
        data=session.data.source,
        cut_texts=session.cut_texts,
        set_budget=set_budget_part(session),
        notes=[*sessions.notes(session), *timing_notes],
        samples=measured.samples,
        gflops=gflops,
        generation=generation_part(session.task, model, measured),
        towers=by_tower(layers),
        layers=layers,
        latency=latency,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        compute=compute_part(session.compute),
        environment=environment(session.compute.device),
    )


def planned_stages(session: Session, batch_sizes: Sequence[int], fvcore_check: bool) -> list[PlannedStage]:
    """Return the stages that follow. A forward pass of each model on a few samples tells how long they take."""
    split, model = session.settings.split, session.model
    rows = len(batching.rows(session, split, CALIBRATION_SAMPLES))
    models = {"model": model} | ({"dense": dense_teacher(model)} if batch_sizes and model.pruning else {})
    inputs = batching.full_batches(session, split, PROBED_SAMPLES, 1)[0]
    seconds = timing.in_turns(models, [session.compute.moved(inputs)], session.compute, turns=2)
    shortest = [min(found) / len(inputs["pixel_values"]) for found in seconds.values()]
    stages = []
    if _needs_run(session):
        stages.append(PlannedStage(COUNTING, rows * shortest[0]))
    for size in _sizes(session, batch_sizes):
        stages += timing.planned_stages(size, [size * forward for forward in shortest])
    if fvcore_check:
        seconds_each = FVCORE_SECONDS + FVCORE_PASSES * shortest[0]
        stages.append(PlannedStage(FVCORE, FVCORE_SAMPLES * seconds_each, "fvcore"))
    return stages


def _needs_run(session: Session) -> bool:
    """Return whether the token counts need forward passes; a dense model's cost follows from its texts."""
    predicts = session.settings.samples_out is not None
    return predicts or bool(session.model.pruning) or sample_costs.generates(session.model.config)


def _sizes(session: Session, batch_sizes: Sequence[int]) -> list[int]:
    """Return the batch sizes that the samples suffice for."""
    available = len(batching.rows(session, session.settings.split))
    return sorted({min(size, available) for size in batch_sizes})


def _measure(session: Session) -> run.Measured:
    """Return the token counts of the samples."""
    split, config = session.settings.split, session.model.config
    if _needs_run(session):
        return run.measure(session, COUNTING, session.model, split, CALIBRATION_SAMPLES)
    counts = sample_costs.dense_counts(config, sample_costs.text_lengths(session, split, CALIBRATION_SAMPLES))
    return run.Measured(TaskResult([], []), counts, sample_costs.GenerationCost(config))


def _gflops(session: Session, measured: run.Measured, checked: int) -> CheckedGflops:
    """Return the GFLOPs by the formula, and those that fvcore and the formula count on some samples."""
    gflops, dense = (
        measured.gflops(session.model),
        sample_costs.dense_gflops(session, session.settings.split, CALIBRATION_SAMPLES),
    )
    part = GflopsPart.of(dense.mean(), gflops.mean() if session.model.pruning else None)
    by_fvcore, by_formula = _check(session, checked) if checked else ([], gflops.tolist())
    return CheckedGflops(
        **part.model_dump(),
        fvcore=sum(by_fvcore) / len(by_fvcore) if by_fvcore else None,
        formula=sum(by_formula) / len(by_formula),
        fvcore_samples=len(by_fvcore),
    )


def _check(session: Session, checked: int) -> tuple[list[float], list[float]]:
    """Return what fvcore and the formula count on each of some samples."""
    split, model = session.settings.split, session.model.float().cpu()
    samples = batching.full_batches(session, split, 1, checked)
    session.progress.start(FVCORE, len(samples))
    by_fvcore, by_formula = [], []
    for number, sample in enumerate(samples):
        if model.pruning:  # the same run: with other rounding a token may be pruned or kept
            by_formula.append(run.mean_gflops(model, [sample], ComputeConfig.of("cpu", "float32")))
        by_fvcore.append(count_with_fvcore(model, sample) / 1e9)
        session.progress.advance(number + 1)
    session.progress.finish()
    return by_fvcore, by_formula or sample_costs.dense_gflops(session, split, len(samples)).tolist()


def _time(session: Session, batch_sizes: Sequence[int]) -> tuple[list[LatencyPart], list[str]]:
    """Return the times of the model, and of its dense model if it is pruned, and notes about the batch sizes."""
    model, split = session.model, session.settings.split
    available = len(batching.rows(session, split))
    dense, pruned = (dense_teacher(model), model) if batch_sizes and model.pruning else (model, None)
    parts = [
        timing.latency(
            dense,
            pruned,
            batching.full_batches(session, split, size, timing.BATCHES),
            session.compute,
            progress=session.progress,
        )
        for size in _sizes(session, batch_sizes)
    ]
    too_large = " and ".join(str(size) for size in sorted(set(batch_sizes)) if size > available)
    if not too_large:
        return parts, []
    return parts, [f"The data have {available} samples, so batch size {available} was timed instead of {too_large}."]
