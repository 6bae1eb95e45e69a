"""madtp eval: measure the quality of a checkpoint on labelled samples."""

from __future__ import annotations

import time
from pathlib import Path

from madtp_cli import processes
from madtp_cli.config import RunSettings
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import sample_costs, sample_files
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.quality import quality
from madtp_cli.evaluation.report_parts import generation_part
from madtp_cli.evaluation.run import measure
from madtp_cli.evaluation.session import Session
from madtp_cli.pipelines.samples import write_samples
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import EvalReport, GflopsPart


def evaluate(source: Path, settings: RunSettings, progress: ProgressReporter | None = None) -> EvalReport:
    """Measure the quality and the cost of a checkpoint, dense or pruned, on labelled samples.

    Args:
        source: A checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
        settings: The data and all other settings, see `config.resolve`.
        progress: Receives the progress.

    Raises:
        MadtpError: A subclass with its exit code.
    """
    started = time.monotonic()
    processes.start(settings.device)
    processes.from_main(lambda: sample_files.check(settings.samples_out))
    session = Session.open(source, settings, progress or ProgressReporter(), [settings.split])
    if not session.labelled:
        raise UsageError(
            f"{source} was not trained on the built-in scenes, so it cannot be evaluated on them.\n"
            "Give --data with labelled samples of its task."
        )
    model = session.model
    measured = measure(session, "Evaluating the model", model, settings.split)
    pruned = measured.gflops(model).mean() if model.pruning else None
    write_samples(session, measured)
    return EvalReport(
        command="eval",
        checkpoint=str(source),
        task=session.task.name,
        data=session.data.source,
        cut_texts=session.cut_texts,
        notes=sessions.notes(session),
        quality=quality(session, measured),
        gflops=GflopsPart.of(sample_costs.dense_gflops(session, settings.split).mean(), pruned),
        generation=generation_part(session.task, model, measured),
        seconds=time.monotonic() - started,
    )
