"""madtp compress: attach pruning, meet the budget, fine-tune, measure and save."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from madtp_cli import processes
from madtp_cli.checkpoint import hashing, number_format, output_place
from madtp_cli.checkpoint.atomic_write import clean_up
from madtp_cli.checkpoint.save import save
from madtp_cli.checkpoint.state_folder import StateFolder
from madtp_cli.compression.compress_model import CompressedModel, compress_model
from madtp_cli.compression.stage_titles import EVALUATING, MATCHING, SAVING
from madtp_cli.config import CompressSettings
from madtp_cli.evaluation import batching, run_record, sample_files, sample_records, timing
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.index_compatibility import index_part
from madtp_cli.evaluation.quality import agreement_part, change, compared, require_labelled_rows
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
from madtp_cli.pipelines import gating, resuming, tracking
from madtp_cli.pipelines.card_files import card_files
from madtp_cli.pipelines.range_points import measured_points
from madtp_cli.progress import ProgressReporter
from madtp_cli.progress.forecast import Forecast
from madtp_cli.reporting.plain_text import safe_json
from madtp_cli.reporting.reading import REPORT
from madtp_cli.reporting.record import RecordPart
from madtp_cli.reporting.samples import SampleRecord
from madtp_cli.reporting.schema import (
    BudgetPart,
    CompressReport,
    CurvePoint,
    GflopsPart,
    LatencyPart,
    LayerPart,
    WeightsPart,
)


def compress(source: Path, settings: CompressSettings, progress: ProgressReporter | None = None) -> CompressReport:
    """Bring a checkpoint to a FLOPs budget and save it as a folder.

    Args:
        source: A checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
        settings: The budget and all other settings, see `config.resolve`.
        progress: Receives the progress.

    Raises:
        MadtpError: A subclass with its exit code. Nothing is saved then.
    """
    started, output = time.monotonic(), settings.output_for(source)
    processes.start(settings.device)
    tracker = tracking.tracked(Forecast.of(progress), settings, output.name)
    processes.from_main(lambda: check_outputs(source, settings))
    with tracker as progress, StateFolder(output, settings.save_every) as state:
        processes.from_main(lambda: clean_up(output))
        session = open_session(source, settings, progress)
        record = processes.from_main(lambda: run_record.record(source, session, settings))
        finished = processes.from_main(lambda: resuming.finished(output, settings, record))
        if finished is not None:
            report = _repeated(finished, output, session, settings)
        else:
            record = resuming.begin(state, settings, record)
            with resuming.noted(state):
                report = _run(source, session, settings, state, record, started)
        state.clear()
    gating.write_junit(report.gates, settings, str(output), report.seconds)
    return report


def check_outputs(source: Path, settings: CompressSettings) -> None:
    """Check before a run that its outputs can be written, and that what writes them is installed.

    Raises:
        OutputError, UsageError: They cannot, or it is not.
    """
    inputs = (source, settings.data, settings.image_root, settings.tokenizer)
    output_place.check(settings.output_for(source), inputs, overwrite=settings.overwrite, resume=settings.resume)
    sample_files.check(settings.samples_out)
    tracking.require_installed(settings.tracker)


def open_session(source: Path, settings: CompressSettings, progress: ProgressReporter) -> Session:
    """Return the session of a compression whose gates are possible.

    Raises:
        MadtpError: An input cannot be used.
    """
    session = Session.open(source, settings, progress)
    require_labelled_rows(session)
    gating.require_possible(settings, conditions(session))
    return session


def _repeated(finished: CompressReport, output: Path, session: Session, settings: CompressSettings) -> CompressReport:
    """Return the report of a run that `--resume` found finished, with the files and gates of these settings."""
    session.progress.message(f"{output} already has the result of these settings.")
    if (file := settings.samples_out) is not None:
        processes.from_main(lambda: sample_files.write(file, sample_files.read(output / sample_files.FILE_NAME)))
    return gating.with_gates(finished, settings)


def _run(
    source: Path,
    session: Session,
    settings: CompressSettings,
    state: StateFolder,
    record: RecordPart,
    started: float,
) -> CompressReport:
    """Compress, measure and save; return the report of the saved folder."""
    compressed = compress_model(session, settings, state)
    dense = measure(session, EVALUATING[0], compressed.teacher, settings.split, matching=MATCHING[0])
    pruned = measure(session, EVALUATING[1], compressed.student, settings.split, matching=MATCHING[1])
    pruned, dense = compared(session, dense, pruned), compared(session, dense, dense)
    report = _report(source, state.output, session, compressed, dense, pruned, started, record)
    points = measured_points(session, settings, compressed, dense, lambda label: _latency(session, compressed, label))
    report = gating.with_gates(report.model_copy(update={"budgets": points}), settings)
    samples = sample_records.records(session, (compressed.teacher, dense), (compressed.student, pruned))
    session.progress.start(SAVING, 0)
    report = processes.from_main(lambda: _save(report, session, compressed, settings, samples))
    session.progress.finish()
    return report


def _save(
    report: CompressReport,
    session: Session,
    compressed: CompressedModel,
    settings: CompressSettings,
    samples: Sequence[SampleRecord],
) -> CompressReport:
    """Write the folder, and the samples where the settings want them too; return the report with all fingerprints."""
    complete: list[CompressReport] = []
    pages = card_files(Path(report.checkpoint), session, compressed, report)

    def files(folder: Path) -> dict[str, str | bytes]:
        outputs = {file.name: hashing.sha256(file) for file in sorted(folder.glob("*.safetensors"))}
        record = report.record.model_copy(update={"outputs": outputs})
        complete.append(report.model_copy(update={"record": record}))
        return {
            REPORT: safe_json(complete[0].model_dump_json(indent=2)) + "\n",
            sample_files.FILE_NAME: sample_files.text(samples),
            **pages,
        }

    student = compressed.student.cpu()
    output, dtype = Path(report.output), compressed.saved_in
    save(student, session.processor, output, files=files, overwrite=settings.overwrite, dtype=dtype)
    if settings.samples_out is not None:
        sample_files.write(settings.samples_out, samples)
    return complete[0]


def _report(
    source: Path,
    output: Path,
    session: Session,
    compressed: CompressedModel,
    dense: Measured,
    pruned: Measured,
    started: float,
    record: RecordPart,
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
        index=index_part(session, dense, pruned),
        compute=compute_part(session.compute),
        latency=_latency(session, compressed),
        tokens=_tokens_by_tower(layers),
        weights=_weights_part(session, compressed),
        threshold_scale=calibration.threshold_scale,
        curve=_curve(compressed),
        allocation=session.allocation,
        training=thinned(session.training),
        settings=session.settings.model_dump(mode="json", exclude={"resume"}),
        record=record,
        environment=environment(session.compute.device),
        seconds=time.monotonic() - started,
    )


def _curve(compressed: CompressedModel) -> list[CurvePoint]:
    """Return what was measured of the cost: the calibrated curve and the trials of the last calibration."""
    tried = [(scale, gflops / compressed.target.dense) for scale, gflops in compressed.calibration.tried]
    points = sorted({*tried, *((scale, share) for scale, share in compressed.settings.curve)})
    return [CurvePoint(threshold_scale=scale, share=share) for scale, share in points]


def _latency(session: Session, compressed: CompressedModel, label: str = "") -> LatencyPart:
    """Time both models in the main process; `label` is for the names of the stages."""
    models, settings = (compressed.teacher, compressed.student), session.settings

    def timed() -> LatencyPart:
        batches = batching.full_batches(session, settings.split, settings.batch_size, timing.BATCHES)
        return timing.latency(*models, batches, session.compute, progress=session.progress, label=label)

    return processes.from_main(timed)


def _tokens_by_tower(layers: list[LayerPart]) -> dict[str, list[LayerPart]]:
    """Return the blocks of each tower that has blocks."""
    towers: dict[str, list[LayerPart]] = {}
    for part in layers:
        if part.tokens_in:
            towers.setdefault(part.tower, []).append(part)
    return towers


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
