"""madtp profile: count the FLOPs of a checkpoint by tower and layer, and time it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from madtp_cli.compression import fine_tuning
from madtp_cli.config import RunSettings
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import run, sample_costs, timing
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.session import CALIBRATION_SAMPLES, Session
from madtp_cli.flops import fvcore_check
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import (
    CheckedGflops,
    Environment,
    GflopsPart,
    LatencyPart,
    ProfileReport,
)
from madtp_cli.tasks import TaskResult

#: Samples that fvcore traces in `profile`; each takes about as long as twenty forwards.
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
    """Count what a checkpoint costs, by tower and layer, with fvcore as a witness; time it where asked.

    Args:
        source: Checkpoint file or folder; or `arch`, the name of a published architecture.
        settings: Data, split, limit; the data decides how many tokens a pruned model keeps.
        listener: Hears of the progress.
        arch: See `models.architectures`; needs neither weights nor data.
        text_tokens: Count one text of this length instead of the data's; dense models only.
        batch_sizes: Time forwards of so many of the first samples, dense and pruned in turns.

    Raises:
        MadtpError: One of its kinds.
    """
    progress = progress or ProgressReporter()
    if (source is None) == (arch is None):
        raise UsageError("Give either a checkpoint or --arch, one of them.")
    if source is None or text_tokens is not None:
        if batch_sizes:
            raise UsageError(
                "--time needs samples to run, so it goes with neither --arch nor --text-tokens.\nLeave them out."
            )
        return _profile_without_data(source, arch, text_tokens, settings, progress)
    session = Session.open(source, settings, progress, [settings.split])
    measured = _counted(session)
    timed, told = _timed(session, batch_sizes)
    fvcore_samples = session.single_samples(settings.split, FVCORE_SAMPLES)
    progress.start("fvcore as a witness", len(fvcore_samples))
    counted, claimed, plain = [], [], session.model.float().cpu()
    for number, sample in enumerate(fvcore_samples):
        if plain.pruning:  # the formula on the same run: rounded otherwise, a token may have gone the other way
            claimed.append(run.mean_gflops(plain, [sample], run.ComputeConfig.of("cpu", "float32")))
        counted.append(fvcore_check.count_with_fvcore(plain, sample) / 1e9)
        progress.advance(number + 1)
    progress.finish()
    dense = sessions.dense_gflops(session, settings.split, CALIBRATION_SAMPLES).mean()
    own = measured.gflops(session.model)
    layers = run.layer_parts(session.model, measured.counts)
    return ProfileReport(
        command="profile",
        checkpoint=str(source),
        task=session.task.name,
        data=session.data.source,
        notes=[*session.notes(), *told],
        samples=len(own),
        gflops=CheckedGflops(
            **GflopsPart.of(dense, own.mean() if session.model.pruning else None).model_dump(),
            fvcore=sum(counted) / len(counted),
            formula=sum(claimed) / len(claimed) if claimed else float(own[: len(counted)].mean()),
            fvcore_samples=len(counted),
        ),
        answering=run.answering(session.task, session.model, measured),
        towers=run.by_tower(layers),
        layers=layers,
        latency=timed,
        parameters=sum(parameter.numel() for parameter in session.model.parameters()),
        environment=Environment.here(),
    )


def _counted(session: Session) -> run.Measured:
    """A pass over the samples; a dense model whose forward is all there is has known counts, and needs none."""
    split, config = session.settings.split, session.model.config
    if session.model.pruning or sample_costs.searches(config):
        return session.measured("Counting tokens", session.model, split, CALIBRATION_SAMPLES)
    counts = sample_costs.dense_counts(config, session.text_lengths(split, CALIBRATION_SAMPLES))
    return run.Measured(TaskResult([], []), counts, sample_costs.GenerationCost(config))


def _timed(session: Session, batch_sizes: Sequence[int]) -> tuple[list[LatencyPart], list[str]]:
    """Times at each batch size, a pruned model's beside its dense one's; and what to say about the sizes."""
    model, split = session.model, session.settings.split
    there = len(session.rows(split))
    dense, pruned = (fine_tuning.dense_copy(model), model) if batch_sizes and model.pruning else (model, None)
    timed = [
        timing.latency(dense, pruned, session.to_time(split, size), session.compute, progress=session.progress)
        for size in sorted({min(size, there) for size in batch_sizes})
    ]
    large = sorted(size for size in set(batch_sizes) if size > there)
    sizes = " and ".join(map(str, large))
    told = f"Batches of {sizes} were timed with all the samples there are, the same {there} in each turn."
    return timed, [told] if large else []


def _profile_without_data(
    source: Path | None, arch: str | None, text_tokens: int | None, settings: RunSettings, progress: ProgressReporter
) -> ProfileReport:
    """One sample with a text of the given length through a dense model."""
    model = sessions.load(source, settings, progress)[0] if source else sessions.empty(str(arch))
    if model.pruning:
        raise UsageError(
            "How many tokens a pruned model keeps depends on the images, so --text-tokens is for dense ones.\n"
            "Leave it out; the data decides."
        )
    text_tokens = text_tokens or model.TEXT_TOKENS
    longest = model.config.text_config.max_position_embeddings
    if text_tokens > longest:
        raise UsageError(f"--text-tokens {text_tokens} is more than the model's {longest} positions.\nGive fewer.")
    sample = model.dummy_inputs(text_tokens)
    progress.start("fvcore as a witness", 1)
    counted = fvcore_check.count_with_fvcore(model, sample) / 1e9
    progress.finish()
    with torch.inference_mode():
        counts = sample_costs.counts_of(model, model(**sample).trace)
    own = float(sample_costs.per_sample(model.config, counts)[0]) / 1e9
    layers = run.layer_parts(model, counts)
    return ProfileReport(
        command="profile",
        checkpoint=str(source or arch),
        task=model.config.task,
        data=f"no data: one text of {text_tokens} tokens",
        samples=1,
        gflops=CheckedGflops(dense=own, fvcore=counted, formula=own, fvcore_samples=1),
        towers=run.by_tower(layers),
        layers=layers,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        environment=Environment.here(),
    )
