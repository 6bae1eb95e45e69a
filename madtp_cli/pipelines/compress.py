"""madtp compress: attach pruning, meet the budget, fine-tune, measure and save."""

from __future__ import annotations

import time
from pathlib import Path

from madtp_cli import methods
from madtp_cli.checkpoint.atomic_write import check_output_folder
from madtp_cli.checkpoint.save import save
from madtp_cli.compression import budget, fine_tuning
from madtp_cli.config import CompressSettings
from madtp_cli.evaluation import run, timing
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting import card
from madtp_cli.reporting.schema import (
    BudgetPart,
    CompressReport,
    CurvePoint,
    Environment,
    GflopsPart,
)


def compress(source: Path, settings: CompressSettings, progress: ProgressReporter | None = None) -> CompressReport:
    """Bring a checkpoint to a FLOPs budget and save it as a folder.

    Args:
        source: Checkpoint file or folder.
        settings: The budget and everything else; see `config.resolve`.
        listener: Hears of the progress.

    Raises:
        MadtpError: One of its kinds, each with its exit code; nothing is saved then.
    """
    started, progress = time.monotonic(), progress or ProgressReporter()
    output = settings.output or Path(f"{source.resolve().stem}-madtp")
    budget.parse(settings.gflops_budget)
    methods.get(settings.method)
    check_output_folder(output, settings.overwrite)
    session = Session.open(source, settings, progress)
    pruned = fine_tuning.prune(session, settings)
    before = session.measured("Evaluating the dense model", pruned.teacher, settings.split)
    after = session.measured("Evaluating the pruned model", pruned.student, settings.split)
    report = _compress_report(source, output, session, pruned, before, after, started)
    readme = card.model_card(report, session.task.pipeline_tag, session.task.title)
    files = {"report.json": report.model_dump_json(indent=2) + "\n", "README.md": readme}
    save(pruned.student.cpu(), session.processor, output, files=files, overwrite=settings.overwrite)
    return report


def _compress_report(
    source: Path,
    output: Path,
    session: Session,
    pruned: fine_tuning.Pruned,
    before: run.Measured,
    after: run.Measured,
    started: float,
) -> CompressReport:
    layers = run.layer_parts(pruned.student, after.counts)
    target, final = pruned.target, pruned.calibration
    batches = session.to_time(session.settings.split, session.settings.batch_size)
    return CompressReport(
        command="compress",
        checkpoint=str(source),
        output=str(output),
        task=session.task.name,
        data=session.data.source,
        method=pruned.settings.method,
        notes=session.notes(),
        budget=BudgetPart(
            requested=target.requested,
            share=target.share,
            gflops=target.gflops,
            achieved_val=final.gflops,
            achieved_share=final.gflops / target.dense,
            samples=len(session.rows("val")),
        ),
        gflops=GflopsPart.of(before.gflops(pruned.teacher).mean(), after.gflops(pruned.student).mean()),
        generation=run.answering(session.task, pruned.student, after, before),
        quality=session.change(before, after),
        latency=timing.latency(pruned.teacher, pruned.student, batches, session.compute),
        tokens={name: [part for part in layers if part.tower == name and part.tokens_in] for name in after.counts},
        threshold_scale=final.threshold_scale,
        curve=[CurvePoint(threshold_scale=scale, share=gflops / target.dense) for scale, gflops in final.tried],
        settings=session.settings.model_dump(mode="json"),
        environment=Environment.here(),
        seconds=time.monotonic() - started,
    )
