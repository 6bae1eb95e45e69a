"""madtp profile: count the FLOPs of a checkpoint by tower and layer, check them with fvcore, and time the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from madtp_cli.compression.student import dense_teacher
from madtp_cli.config import RunSettings
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import batching, run, sample_costs, timing
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.compute import ComputeConfig
from madtp_cli.evaluation.report_parts import by_tower, generation_part, layer_parts
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.flops import fvcore_check
from madtp_cli.pipelines.profile_without_data import profile_without_data
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import CheckedGflops, Environment, GflopsPart, LatencyPart, ProfileReport
from madtp_cli.tasks import TaskResult

#: Samples that fvcore traces; each takes about as long as twenty forward passes.
FVCORE_SAMPLES = 8


def profile(
    source: Path | None,
    settings: RunSettings,
    progress: ProgressReporter | None = None,
    *,
    arch: str | None = None,
    text_tokens: int | None = None,
    batch_sizes: Sequence[int] = (),
) -> ProfileReport:
    """Count the GFLOPs of a checkpoint by tower and layer, and compare the formula with fvcore.

    Args:
        source: A checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
        settings: Data, split and limit; the number of tokens that a pruned model keeps depends on the data.
        progress: Receives the progress.
        arch: A published architecture instead of a checkpoint, see `models.architectures`. It needs no data.
        text_tokens: Count one text of this length instead of the data's; for dense models only.
        batch_sizes: Also time the forward passes of these batch sizes.

    Raises:
        MadtpError: A subclass with its exit code.
    """
    progress = progress or ProgressReporter()
    if (source is None) == (arch is None):
        raise UsageError("Give either a checkpoint or --arch, not both.")
    if source is None or text_tokens is not None:
        if batch_sizes:
            raise UsageError(
                "--time needs samples, so it cannot be used with --arch or --text-tokens.\nLeave out one of them."
            )
        return profile_without_data(source, arch, text_tokens, settings, progress)
    session = Session.open(source, settings, progress, [settings.split])
    return _report(source, session, _measure(session), batch_sizes)


def _report(source: Path, session: Session, measured: run.Measured, batch_sizes: Sequence[int]) -> ProfileReport:
    model = session.model
    latency, timing_notes = _time(session, batch_sizes)
    gflops = _check(session, measured)  # moves the model to the CPU in float32, so it comes after the timing
    layers = layer_parts(model, measured.counts)
    return ProfileReport(
        command="profile",
        checkpoint=str(source),
        task=session.task.name,
        data=session.data.source,
        cut_texts=session.cut_texts,
        notes=[*sessions.notes(session), *timing_notes],
        samples=measured.samples,
        gflops=gflops,
        generation=generation_part(session.task, model, measured),
        towers=by_tower(layers),
        layers=layers,
        latency=latency,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        environment=Environment.here(),
    )


def _measure(session: Session) -> run.Measured:
    """Return the token counts of the samples. A dense model needs no forward pass if nothing runs after it."""
    split, config = session.settings.split, session.model.config
    if session.model.pruning or sample_costs.generates(config):
        return run.measure(session, "Counting tokens", session.model, split, CALIBRATION_SAMPLES)
    counts = sample_costs.dense_counts(config, sample_costs.text_lengths(session, split, CALIBRATION_SAMPLES))
    return run.Measured(TaskResult([], []), counts, sample_costs.GenerationCost(config))


def _check(session: Session, measured: run.Measured) -> CheckedGflops:
    """Return the GFLOPs by the formula, and those that fvcore and the formula count on the first samples."""
    split, model = session.settings.split, session.model.float().cpu()
    samples = batching.full_batches(session, split, 1, FVCORE_SAMPLES)
    session.progress.start("Counting with fvcore", len(samples))
    by_fvcore, by_formula = [], []
    for number, sample in enumerate(samples):
        if model.pruning:  # the same run: with other rounding a token may be pruned or kept
            by_formula.append(run.mean_gflops(model, [sample], ComputeConfig.of("cpu", "float32")))
        by_fvcore.append(fvcore_check.count_with_fvcore(model, sample) / 1e9)
        session.progress.advance(number + 1)
    session.progress.finish()
    gflops = measured.gflops(model)
    by_formula = by_formula or gflops[: len(samples)].tolist()
    dense = sample_costs.dense_gflops(session, split, CALIBRATION_SAMPLES).mean()
    return CheckedGflops(
        **GflopsPart.of(dense, gflops.mean() if model.pruning else None).model_dump(),
        fvcore=sum(by_fvcore) / len(samples),
        formula=sum(by_formula) / len(samples),
        fvcore_samples=len(samples),
    )


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
        for size in sorted({min(size, available) for size in batch_sizes})
    ]
    too_large = " and ".join(str(size) for size in sorted(set(batch_sizes)) if size > available)
    if not too_large:
        return parts, []
    return parts, [f"The data have {available} samples, so batch size {available} was timed instead of {too_large}."]
