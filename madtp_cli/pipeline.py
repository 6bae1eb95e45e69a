"""compress, evaluate, profile: the story of each command, one call per stage. Start reading here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from madtp_cli import budget, card, checkpoint, flops, measure, methods, timing, tuning, witness, workbench
from madtp_cli.config import CompressSettings, RunSettings
from madtp_cli.errors import UsageError
from madtp_cli.listener import Listener
from madtp_cli.report import (
    BudgetPart,
    CompressReport,
    Environment,
    EvalReport,
    GflopsPart,
    LatencyPart,
    ProfileReport,
    WitnessedGflops,
)
from madtp_cli.tasks import Judged
from madtp_cli.workbench import CALIBRATION_SAMPLES, Workbench

#: Samples that fvcore traces in `profile`; each takes about as long as twenty forwards.
WITNESSES = 8


def compress(source: Path, settings: CompressSettings, listener: Listener | None = None) -> CompressReport:
    """Bring a checkpoint to a FLOPs budget and save it as a folder.

    Args:
        source: Checkpoint file or folder.
        settings: The budget and everything else; see `config.resolve`.
        listener: Hears of the progress.

    Raises:
        MadtpError: One of its kinds, each with its exit code; nothing is saved then.
    """
    started, listener = time.monotonic(), listener or Listener()
    output = settings.output or Path(f"{source.resolve().stem}-madtp")
    budget.parse(settings.gflops_budget)
    methods.get(settings.method)
    checkpoint.check_output(output, settings.overwrite)
    bench = Workbench.open(source, settings, listener)
    pruned = tuning.prune(bench, settings)
    before = bench.measured("Dense model on the test samples", pruned.teacher, settings.split)
    after = bench.measured("Pruned model on the test samples", pruned.student, settings.split)
    report = _compress_report(source, output, bench, pruned, before, after, started)
    files = {"report.json": report.model_dump_json(indent=2) + "\n", "README.md": card.model_card(report)}
    checkpoint.save(pruned.student.cpu(), bench.processor, output, files=files, overwrite=settings.overwrite)
    return report


def _compress_report(
    source: Path,
    output: Path,
    bench: Workbench,
    pruned: tuning.Pruned,
    before: measure.Measured,
    after: measure.Measured,
    started: float,
) -> CompressReport:
    layers = measure.layer_parts(pruned.student, after.counts)
    target, final = pruned.target, pruned.calibration
    batches = bench.to_time(bench.settings.split, bench.settings.batch_size)
    return CompressReport(
        command="compress",
        checkpoint=str(source),
        output=str(output),
        task=bench.task.name,
        data=bench.data.source,
        method=pruned.settings.method,
        notes=bench.notes(),
        budget=BudgetPart(
            requested=target.requested,
            share=target.share,
            gflops=target.gflops,
            achieved_val=final.gflops,
            achieved_share=final.gflops / target.dense,
            samples=len(bench.rows("val")),
        ),
        gflops=GflopsPart.of(before.gflops(pruned.teacher).mean(), after.gflops(pruned.student).mean()),
        answering=measure.answering(bench.task, pruned.student, after, before),
        quality=bench.change(before, after),
        latency=timing.latency(pruned.teacher, pruned.student, batches, bench.place),
        tokens={name: [part for part in layers if part.tower == name and part.tokens_in] for name in after.counts},
        knob=final.knob,
        curve=[(knob, gflops / target.dense) for knob, gflops in final.tried],
        settings=bench.settings.model_dump(mode="json"),
        environment=Environment.here(),
        seconds=time.monotonic() - started,
    )


def evaluate(source: Path, settings: RunSettings, listener: Listener | None = None) -> EvalReport:
    """Measure a checkpoint, dense or pruned, on labelled samples."""
    started = time.monotonic()
    bench = Workbench.open(source, settings, listener or Listener(), [settings.split])
    if not bench.labelled:
        raise UsageError(
            f"{source} was not trained on the built-in scenes, so their labels say nothing about it.\n"
            "Give --data with samples of its own task."
        )
    measured = bench.measured("Evaluating", bench.model, settings.split)
    pruned = measured.gflops(bench.model).mean() if bench.model.pruning else None
    return EvalReport(
        command="eval",
        checkpoint=str(source),
        task=bench.task.name,
        data=bench.data.source,
        notes=bench.notes(),
        quality=bench.quality(measured),
        gflops=GflopsPart.of(workbench.dense_gflops(bench, settings.split).mean(), pruned),
        answering=measure.answering(bench.task, bench.model, measured),
        seconds=time.monotonic() - started,
    )


def profile(
    source: Path | None,
    settings: RunSettings,
    listener: Listener | None = None,
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
    listener = listener or Listener()
    if (source is None) == (arch is None):
        raise UsageError("Give either a checkpoint or --arch, one of them.")
    if source is None or text_tokens is not None:
        if batch_sizes:
            raise UsageError(
                "--time needs samples to run, so it goes with neither --arch nor --text-tokens.\nLeave them out."
            )
        return _profile_without_data(source, arch, text_tokens, settings, listener)
    bench = Workbench.open(source, settings, listener, [settings.split])
    measured = _counted(bench)
    timed, told = _timed(bench, batch_sizes)
    witnesses = bench.single_samples(settings.split, WITNESSES)
    listener.stage("fvcore as a witness", len(witnesses))
    counted, claimed, plain = [], [], bench.model.float().cpu()
    for number, sample in enumerate(witnesses):
        if plain.pruning:  # the formula on the same run: rounded otherwise, a token may have gone the other way
            claimed.append(measure.mean_gflops(plain, [sample], measure.Place.of("cpu", "float32")))
        counted.append(witness.witnessed(plain, sample) / 1e9)
        listener.advance(number + 1)
    listener.done()
    dense = workbench.dense_gflops(bench, settings.split, CALIBRATION_SAMPLES).mean()
    own = measured.gflops(bench.model)
    layers = measure.layer_parts(bench.model, measured.counts)
    return ProfileReport(
        command="profile",
        checkpoint=str(source),
        task=bench.task.name,
        data=bench.data.source,
        notes=[*bench.notes(), *told],
        samples=len(own),
        gflops=WitnessedGflops(
            **GflopsPart.of(dense, own.mean() if bench.model.pruning else None).model_dump(),
            fvcore=sum(counted) / len(counted),
            formula=sum(claimed) / len(claimed) if claimed else float(own[: len(counted)].mean()),
            witnesses=len(counted),
        ),
        answering=measure.answering(bench.task, bench.model, measured),
        towers=measure.by_tower(layers),
        layers=layers,
        latency=timed,
        parameters=sum(parameter.numel() for parameter in bench.model.parameters()),
        environment=Environment.here(),
    )


def _counted(bench: Workbench) -> measure.Measured:
    """A pass over the samples; a dense model whose forward is all there is has known counts, and needs none."""
    split, config = bench.settings.split, bench.model.config
    if bench.model.pruning or flops.searches(config):
        return bench.measured("Counting tokens", bench.model, split, CALIBRATION_SAMPLES)
    counts = flops.dense_counts(config, bench.text_lengths(split, CALIBRATION_SAMPLES))
    return measure.Measured(Judged([], []), counts, flops.Search(config))


def _timed(bench: Workbench, batch_sizes: Sequence[int]) -> tuple[list[LatencyPart], list[str]]:
    """Times at each batch size, a pruned model's beside its dense one's; and what to say about the sizes."""
    model, split = bench.model, bench.settings.split
    there = len(bench.rows(split))
    dense, pruned = (tuning.dense_copy(model), model) if batch_sizes and model.pruning else (model, None)
    timed = [
        timing.latency(dense, pruned, bench.to_time(split, size), bench.place, listener=bench.listener)
        for size in sorted({min(size, there) for size in batch_sizes})
    ]
    large = sorted(size for size in set(batch_sizes) if size > there)
    sizes = " and ".join(map(str, large))
    told = f"Batches of {sizes} were timed with all the samples there are, the same {there} in each turn."
    return timed, [told] if large else []


def _profile_without_data(
    source: Path | None, arch: str | None, text_tokens: int | None, settings: RunSettings, listener: Listener
) -> ProfileReport:
    """One sample with a text of the given length through a dense model."""
    model = workbench.load(source, settings, listener)[0] if source else workbench.empty(str(arch))
    if model.pruning:
        raise UsageError(
            "How many tokens a pruned model keeps depends on the images, so --text-tokens is for dense ones.\n"
            "Leave it out; the data decides."
        )
    text_tokens = text_tokens or model.TEXT_TOKENS
    longest = model.config.text_config.max_position_embeddings
    if text_tokens > longest:
        raise UsageError(f"--text-tokens {text_tokens} is more than the model's {longest} positions.\nGive fewer.")
    sample = model.blank(text_tokens)
    listener.stage("fvcore as a witness", 1)
    counted = witness.witnessed(model, sample) / 1e9
    listener.done()
    with torch.inference_mode():
        counts = flops.counts_of(model, model(**sample).trace)
    own = float(flops.per_sample(model.config, counts)[0]) / 1e9
    layers = measure.layer_parts(model, counts)
    return ProfileReport(
        command="profile",
        checkpoint=str(source or arch),
        task=model.config.task,
        data=f"no data: one text of {text_tokens} tokens",
        samples=1,
        gflops=WitnessedGflops(dense=own, fvcore=counted, formula=own, witnesses=1),
        towers=measure.by_tower(layers),
        layers=layers,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        environment=Environment.here(),
    )
