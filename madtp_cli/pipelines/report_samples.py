"""The samples in the page of `madtp report`: which ones, and what the pruning did to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from madtp_cli import tasks
from madtp_cli.compression.student import dense_teacher
from madtp_cli.config import RunSettings
from madtp_cli.data import Row
from madtp_cli.evaluation.pruned_samples import Viewer
from madtp_cli.evaluation.session import Session
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting.html.report_page import Card, Gallery
from madtp_cli.reporting.plots import Run
from madtp_cli.reporting.pruned_sample import Answers
from madtp_cli.reporting.samples import SampleRecord
from madtp_cli.tasks import Task

#: Settings that say where the page is made; all others are those of the folder.
HERE = ("device", "dtype", "workers")
#: Settings of data on another machine.
DATA = ("data", "image_root")


def galleries(
    folder: Path, run: Run, settings: RunSettings, progress: ProgressReporter, pictures: int, named: bool
) -> list[Gallery]:
    """Return the samples of a folder with their pictures.

    Args:
        folder, run: The folder and its report.
        settings: Where the data are now, and the device.
        progress: Receives the progress.
        pictures: Number of samples.
        named: Whether the titles name the folder.

    Raises:
        MadtpError: The model or its data cannot be used.
    """
    chosen = choose(run.records, pictures)
    if not any(found for _, _, found in chosen):
        return []
    session = Session.open(folder, _settings(run, settings), progress, [run.report.quality.split])
    viewer = Viewer(
        session.model, session.processor, session.task, session.compute, dense_teacher(session.model), "dense model"
    )
    rows = _rows(session, {record.id for _, _, found in chosen for record in found})
    texts = _candidates(session, run) if run.records and isinstance(run.records[0].prediction.dense, list) else ()
    progress.start("Drawing samples", sum(len(found) for _, _, found in chosen))
    made, done = [], 0
    for title, explanation, found in chosen:
        cards = []
        for record in found:
            if record.id in rows:
                cards.append(_card(viewer, rows[record.id], record, texts))
            progress.advance(done := done + 1)
        made.append(Gallery(f"{run.name}: {title}" if named else title, explanation, cards))
    progress.finish()
    return made


def choose(records: Sequence[SampleRecord], number: int) -> list[tuple[str, str, list[SampleRecord]]]:
    """Return the samples to show, each once: title, explanation and records.

    A quarter each for: worse, better, cheapest, dearest. Where few samples changed, the last two get more.
    """
    quarter = number // 4
    changed = sorted(records, key=_change)
    worse = [record for record in changed if _change(record) < 0][:quarter]
    better = [record for record in reversed(changed) if _change(record) > 0][:quarter]
    used = {record.id for record in (*worse, *better)}
    by_cost = [record for record in sorted(records, key=_cost) if record.id not in used]
    each = min((number - len(used)) // 2, len(by_cost) // 2)
    lost, won = (sum(_change(record) * sign > 0 for record in records) for sign in (-1, 1))
    of = f"of {len(records):,} samples"
    return [
        ("Right before, wrong now", f"{lost:,} {of} score less with pruning; the largest losses first.", worse),
        ("Wrong before, right now", f"{won:,} {of} score more with pruning; the largest gains first.", better),
        ("The cheapest samples", "Those with the fewest GFLOPs after pruning.", by_cost[:each]),
        ("The dearest samples", "Those with the most GFLOPs after pruning.", by_cost[::-1][:each]),
    ]


def _change(record: SampleRecord) -> float:
    dense, pruned = record.score.dense, record.score.pruned
    return 0.0 if dense is None or pruned is None else pruned - dense


def _cost(record: SampleRecord) -> float:
    return record.gflops.dense if record.gflops.pruned is None else record.gflops.pruned


def _settings(run: Run, settings: RunSettings) -> RunSettings:
    """Return the settings of the folder, with the place of the data and the device from here."""
    own = {name: value for name, value in run.report.settings.items() if name in RunSettings.model_fields}
    own |= {name: getattr(settings, name) for name in HERE}
    if settings.data is not None:
        own |= {name: getattr(settings, name) for name in DATA}
    # The folder states how its checkpoint is read.
    own |= dict.fromkeys(("tokenizer", "head_width", "activation", "weights", "samples_out"))
    return RunSettings.model_validate(own)


def _rows(session: Session, names: Iterable[str]) -> dict[str, Row]:
    """Return the rows with these identifiers."""
    wanted = set(names)
    rows = session.data.split(session.settings.split)
    return {row.identifier: row for row in rows if row.identifier in wanted}


def _candidates(session: Session, run: Run) -> list[str]:
    """Return the texts that retrieval chooses from, in the order of their numbers."""
    names = [record.id for record in run.records]
    rows = _rows(session, names)
    return [text for name in names if name in rows for text in rows[name].references or (rows[name].text,)]


def _card(viewer: Viewer, row: Row, record: SampleRecord, texts: Sequence[str]) -> Card:
    task, predicted, score = viewer.task, record.prediction, record.score
    answers = Answers(
        _words(task, predicted.dense, texts),
        _words(task, predicted.pruned, texts),
        tasks.right_answer(task, row),
        viewer.dense_name,
    )
    scores = (
        ""
        if score.dense is None or score.pruned is None
        else f"score {score.dense:.3g} dense, {score.pruned:.3g} pruned"
    )
    change = _change(record)
    return Card(viewer.view(row, answers), scores, "bad" if change < 0 else "good" if change > 0 else "")


def _words(task: Task, prediction: object, texts: Sequence[str]) -> str:
    return "not known" if prediction is None else tasks.describe(task, prediction, texts)
