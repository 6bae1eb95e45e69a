"""madtp eval: measure the quality of a checkpoint on labelled samples."""

from __future__ import annotations

import time
from pathlib import Path

from madtp_cli.config import RunSettings
from madtp_cli.errors import UsageError
from madtp_cli.evaluation import run
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.schema import (
    EvalReport,
    GflopsPart,
)


def evaluate(source: Path, settings: RunSettings, progress: ProgressReporter | None = None) -> EvalReport:
    """Measure a checkpoint, dense or pruned, on labelled samples."""
    started = time.monotonic()
    session = Session.open(source, settings, progress or ProgressReporter(), [settings.split])
    if not session.labelled:
        raise UsageError(
            f"{source} was not trained on the built-in scenes, so their labels say nothing about it.\n"
            "Give --data with samples of its own task."
        )
    measured = session.measured("Evaluating the model", session.model, settings.split)
    pruned = measured.gflops(session.model).mean() if session.model.pruning else None
    return EvalReport(
        command="eval",
        checkpoint=str(source),
        task=session.task.name,
        data=session.data.source,
        notes=session.notes(),
        quality=session.quality(measured),
        gflops=GflopsPart.of(sessions.dense_gflops(session, settings.split).mean(), pruned),
        generation=run.answering(session.task, session.model, measured),
        seconds=time.monotonic() - started,
    )
