"""madtp compress: attach pruning, meet the budget, fine-tune, measure and save."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from madtp_cli import processes
from madtp_cli.checkpoint import number_format
from madtp_cli.checkpoint.atomic_write import check_output_folder
from madtp_cli.checkpoint.save import save
from madtp_cli.compression.compress_model import CompressedModel, compress_model
from madtp_cli.config import CompressSettings
from madtp_cli.evaluation import batching, sample_files, sample_records, timing
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.quality import agreement_part, change
from madtp_cli.evaluation.report_parts import (
    compute_part,
    conditions,
    environment,
    generation_part,
    layer_parts,
    thinned,
)
from madtp_cli.evaluation.run import Measured, measure
from madtp_cli.evaluation.session import Session
from madtp_cli.pipelines import gating
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting import card
from madtp_cli.reporting.plain_text import safe_json
from madtp_cli.reporting.samples import SampleRecord
from madtp_cli.reporting.schema import BudgetPart, CompressReport, CurvePoint, GflopsPart, LatencyPart, WeightsPart


def compress(source: Path, settings: CompressSettings, progress: ProgressReporter | None = None) -> CompressReport:
    """Bring a checkpoint to a FLOPs budget and save it as a folder.

    Args:
        source: A checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
        settings: The budget and all other settings, see `config.resolve`.
        progress: Receives the progress.

    Raises:
        MadtpError: A subclass with its exit code. Nothing is saved then.
    """
    started, progress = time.monotonic(), progress or ProgressReporter()
    output = settings.output_for(source)
    processes.start(settings.device)
    processes.from_main(lambda: _check_outputs(output, settings))
    session = Session.open(source, settings, progress)
    gating.require_possible(settings, conditions(session))
    compressed = compress_model(session, settings)
    dense = measure(session, "Evaluating the dense model", compressed.teacher, settings.split)
    pruned = measure(session, "Evaluating the pruned model", compressed.student, settings.split)
    report = gating.with_gates(_report(source, output, session, compressed, dense, pruned, started), settings)
    samples = sample_records.records(session, (compressed.teacher, dense), (compressed.student, pruned))
    files = _files(session, report, samples)
    progress.start("Saving", 0)
    processes.from_main(lambda: _save(session, compressed, output, files, samples))
    progress.finish()
    gating.write_junit(report.gates, settings, str(output), report.seconds)
    return report


def _files(session: Session, report: CompressReport, samples: Sequence[SampleRecord]) -> dict[str, str]:
    """Return the text files of the folder by name."""
    return {
        "report.json": safe_json(report.model_dump_json(indent=2)) + "\n",
        sample_files.FILE_NAME: sample_files.text(samples),
        "README.md": card.model_card(report, session.task.pipeline_tag, session.task.title),
    }


def _check_outputs(output: Path, settings: CompressSettings) -> None:
    check_output_folder(output, settings.overwrite)
    sample_files.check(settings.samples_out)


def _save(
    session: Session, compressed: CompressedModel, output: Path, files: dict[str, str], samples: Sequence[SampleRecord]
) -> None:
    """Write the folder, and the samples where the settings want them too."""
    student, settings = compressed.student.cpu(), session.settings
    overwrite = getattr(settings, "overwrite", False)
    save(student, session.processor, output, files=files, overwrite=overwrite, dtype=compressed.saved_in)
    if settings.samples_out is not None:
        sample_files.write(settings.samples_out, samples)


def _report(
    source: Path,
    output: Path,
    session: Session,
    compressed: CompressedModel,
    dense: Measured,
    pruned: Measured,
    started: float,
) -> CompressReport:
    teacher, student, calibration = compressed.teacher, compressed.student, compressed.calibration
    layers = layer_parts(student, pruned.counts)
    return CompressReport(
        command="compress",
        checkpoint=str(source),
        output=str(output),
        task=session.task.name,
        data=session.data.source,
        method=compressed.settings.method,
        cut_texts=session.cut_texts,
        notes=sessions.notes(session),
        budget=_budget_part(session, compressed),
        gflops=GflopsPart.of(dense.gflops(teacher).mean(), pruned.gflops(student).mean()),
        generation=generation_part(session.task, student, pruned, dense),
        quality=change(session, dense, pruned),
        agreement=agreement_part(session, dense, pruned),
        compute=compute_part(session.compute),
        latency=_latency(session, compressed),
        tokens={tower: [part for part in layers if part.tower == tower and part.tokens_in] for tower in pruned.counts},
        weights=_weights_part(session, compressed),
        threshold_scale=calibration.threshold_scale,
        curve=[
            CurvePoint(threshold_scale=scale, share=gflops / compressed.target.dense)
            for scale, gflops in calibration.tried
        ],
        training=thinned(session.training),
        settings=session.settings.model_dump(mode="json"),
        environment=environment(session.compute.device),
        seconds=time.monotonic() - started,
    )


def _latency(session: Session, compressed: CompressedModel) -> LatencyPart:
    """Time both models in the main process."""
    models, settings = (compressed.teacher, compressed.student), session.settings
    batches = batching.full_batches(session, settings.split, settings.batch_size, timing.BATCHES)
    return processes.from_main(lambda: timing.latency(*models, batches, session.compute, progress=session.progress))


def _weights_part(session: Session, compressed: CompressedModel) -> WeightsPart:
    return WeightsPart(
        dtype=number_format.name_of(compressed.saved_in),
        source_dtype=number_format.name_of(session.stored),
        bytes=number_format.weight_bytes(compressed.student, compressed.saved_in),
    )


def _budget_part(session: Session, compressed: CompressedModel) -> BudgetPart:
    target, gflops = compressed.target, compressed.calibration.gflops
    return BudgetPart(
        requested=target.requested,
        share=target.share,
        gflops=target.gflops,
        achieved_val=gflops,
        achieved_share=gflops / target.dense,
        samples=len(batching.rows(session, "val")),
    )
