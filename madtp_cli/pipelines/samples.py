"""The file of `--samples-out` of commands that measure one checkpoint."""

from __future__ import annotations

from madtp_cli import processes
from madtp_cli.compression.student import dense_teacher
from madtp_cli.evaluation import sample_files, sample_records
from madtp_cli.evaluation.run import Measured, measure
from madtp_cli.evaluation.session import Session

#: Name of the stage in which the dense model runs.
WITHOUT_PRUNING = "Evaluating without pruning"


def write_samples(session: Session, measured: Measured, limit: int | None = None) -> None:
    """Write the records of the measured samples, if the settings ask for them.

    The dense model of a pruned checkpoint is the same model with pruning switched off. It runs here.

    Args:
        session: The session of the run.
        measured: The run of the session's model.
        limit: The limit of that run, if it is less than that of the settings.
    """
    file, split, own = session.settings.samples_out, session.settings.split, (session.model, measured)
    if file is None:
        return
    if not session.model.pruning:
        samples = sample_records.records(session, own, None, limit)
        processes.from_main(lambda: sample_files.write(file, samples))
        return
    teacher = dense_teacher(session.model)
    dense = measure(session, WITHOUT_PRUNING, teacher, split, limit)
    samples = sample_records.records(session, (teacher, dense), own, limit)
    processes.from_main(lambda: sample_files.write(file, samples))
