"""madtp compare: every method at every budget, with the same teacher, data, budget search and fine-tuning."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from madtp_cli import processes
from madtp_cli.checkpoint.atomic_write import write_file
from madtp_cli.compression.budget import TOLERANCE, resolve
from madtp_cli.compression.compress_model import compress_model
from madtp_cli.compression.control import fine_tuned_dense
from madtp_cli.compression.student import dense_teacher
from madtp_cli.config import BudgetRequest, CompareSettings, CompressSettings
from madtp_cli.evaluation import batching, run, sample_costs, timing
from madtp_cli.evaluation import session as sessions
from madtp_cli.evaluation.quality import (
    agreement,
    compared,
    paired_difference,
    require_labelled_rows,
    require_labels,
    row_groups,
)
from madtp_cli.evaluation.report_parts import environment
from madtp_cli.evaluation.session import Session
from madtp_cli.models.prunable import Prunable
from madtp_cli.pipelines import comparison_plot
from madtp_cli.pipelines.comparison_points import FOLDER, PointFiles, open_points, point_name, seeds_of
from madtp_cli.pipelines.comparison_reach import unreachable
from madtp_cli.progress import ProgressReporter
from madtp_cli.reporting import comparison_tables
from madtp_cli.reporting.comparison import (
    CONTROL,
    DENSE,
    CompareReport,
    ComparisonPoint,
    ComparisonRow,
    DifferencePart,
    is_dominated,
)
from madtp_cli.reporting.plain_text import safe_json
from madtp_cli.reporting.schema import AGREEMENT, Interval, LatencyPart


def compare(source: Path, settings: CompareSettings, progress: ProgressReporter | None = None) -> CompareReport:
    """Compare methods at equal GFLOPs, and write the results to a folder.

    Each point is one file there. If the command ends early, the next run computes the missing points only.

    Args:
        source: A dense checkpoint file or folder, or the name of a cached model of the Hugging Face hub.
        settings: Methods, budgets, seeds and all other settings, see `config.resolve`.
        progress: Receives the progress.

    Raises:
        MadtpError: A subclass with its exit code. The points that are complete stay.
    """
    started, progress = time.monotonic(), progress or ProgressReporter()
    processes.require_one("compare")
    session = open_session(source, settings, progress)
    files = open_points(source, session, settings)
    comparison = _Comparison(session, settings, files, unreachable(session, settings))
    with files.noted():
        rows = _mark_dominated(list(comparison.rows()))
    report = CompareReport(
        checkpoint=str(source),
        output=str(files.folder),
        task=session.task.name,
        data=session.data.source,
        metric=session.task.metric if session.labelled else AGREEMENT,
        split=settings.split,
        samples=len(batching.rows(session, settings.split)),
        groups=len(set(comparison.groups)),
        steps=comparison.steps,
        rows=rows,
        files=["comparison.json", "comparison.csv", "comparison.md"],
        notes=[*sessions.notes(session), *_notes(settings, rows, files)],
        settings=settings.model_dump(mode="json"),
        environment=environment(session.compute.device),
        seconds=time.monotonic() - started,
    )
    return _write(report, files.folder)


def _notes(settings: CompareSettings, rows: list[ComparisonRow], files: PointFiles) -> list[str]:
    """Return what a reader of the rows should know: methods without seeds, and points without times."""
    once = [method for method in settings.all_methods() if len(seeds_of(settings, method)) < settings.seeds]
    notes = [f"Without fine-tuning no seed changes {', '.join(once)}: run once."] if once else []
    if settings.time and any(row.milliseconds is None for row in rows if row.budget is not None and row.quality):
        notes.append(
            f"Some points were made with --no-time. To time them, remove their files in {files.folder / FOLDER}, "
            "and run the same command."
        )
    return notes


def open_session(source: Path, settings: CompareSettings, progress: ProgressReporter) -> Session:
    """Return the session of a comparison.

    Raises:
        MadtpError: An input cannot be used.
    """
    session = Session.open(source, settings, progress)
    require_labelled_rows(session)
    return session


def _write(report: CompareReport, folder: Path) -> CompareReport:
    """Write the files of a report, the plot only if matplotlib is installed; return the report with all file names."""
    with write_file(folder / "comparison.png", overwrite=True) as new:
        drawn = comparison_plot.plot(report, new)
    if drawn:
        report = report.model_copy(update={"files": [*report.files, "comparison.png"]})
    else:
        report = report.model_copy(update={"notes": [*report.notes, comparison_plot.MISSING]})
    texts = {
        "comparison.csv": comparison_tables.to_csv(report),
        "comparison.md": comparison_tables.to_markdown(report),
        "comparison.json": safe_json(report.model_dump_json(indent=2)) + "\n",
    }
    for name, text in texts.items():
        with write_file(folder / name, overwrite=True) as new:
            new.write_text(text, encoding="utf-8")
    return report


class _Comparison:
    """Computes or reads the points of a comparison, and joins them to rows.

    Args:
        session: Model, data and compute config.
        settings: Methods, budgets and seeds.
        files: The points that exist.
        unreachable: Why a method cannot reach a budget, see `comparison_reach.unreachable`.
    """

    def __init__(
        self,
        session: Session,
        settings: CompareSettings,
        files: PointFiles,
        unreachable: Mapping[tuple[str, str], str],
    ) -> None:
        self.session, self.settings, self.files = session, settings, files
        self.unreachable = unreachable
        self.teacher = dense_teacher(session.model)
        self.groups = row_groups(batching.rows(session, settings.split))
        self.steps = settings.point("madtp", BudgetRequest.parse(1), 0).number_of_steps(0)
        self._dense: run.Measured | None = None

    def rows(self) -> Iterator[ComparisonRow]:
        """Yield the dense model, the control, and each method at each budget."""
        dense = self.files.get(DENSE, self._dense_point)
        yield self._row([dense], dense, None, None)
        seeds = self.settings.all_seeds()
        if self.steps:
            control = [self.files.get(f"{CONTROL}-{seed}", partial(self._control, seed)) for seed in seeds]
            yield self._row(control, dense, None, None)
        for budget in self.settings.budgets:
            found = {
                method: [self._point(method, budget, seed) for seed in seeds_of(self.settings, method)]
                for method in sorted(self.settings.all_methods(), key=lambda name: name != "madtp")
            }
            for method, points in found.items():
                yield self._row(points, dense, None if method == "madtp" else found.get("madtp"), budget)

    def _point(self, method: str, budget: BudgetRequest, seed: int) -> ComparisonPoint:
        name = point_name(method, budget, seed)
        return self.files.get(name, lambda: self._compress(self.settings.point(method, budget, seed)))

    def _dense_measured(self) -> run.Measured:
        """Return the answers of the dense model; they are computed once."""
        if self._dense is None:
            self._dense = run.measure(self.session, "Evaluating the dense model", self.teacher, self.settings.split)
        return self._dense

    def _dense_point(self) -> ComparisonPoint:
        measured = self._dense_measured()
        return ComparisonPoint(
            method=DENSE, gflops=float(measured.gflops(self.teacher).mean()), scores=self._scores(measured)
        )

    def _control(self, seed: int) -> ComparisonPoint:
        """Fine-tune the dense model as a pruned one is: what the training alone changes is no effect of pruning."""
        started = time.monotonic()
        torch.manual_seed(seed)
        settings = self.settings.point("madtp", BudgetRequest.parse(1), seed)
        model = fine_tuned_dense(replace(self.session, settings=settings), self.teacher, settings)
        measured = run.measure(self.session, f"Evaluating the control, seed {seed}", model, self.settings.split)
        return ComparisonPoint(
            method=CONTROL,
            seed=seed,
            gflops=float(measured.gflops(model).mean()),
            scores=self._scores(measured),
            seconds=time.monotonic() - started,
        )

    def _compress(self, settings: CompressSettings) -> ComparisonPoint:
        """Compress the model and measure it; a budget out of reach is a result too."""
        started, budget, method = time.monotonic(), settings.gflops_budget.text, settings.method
        torch.manual_seed(settings.seed)  # the dictionary starts from random values
        self.session.progress.message(f"{method} at {budget}, seed {settings.seed}")
        point = ComparisonPoint(method=method, budget=budget, seed=settings.seed)
        if (reason := self.unreachable.get((method, budget))) is not None:
            return point.model_copy(update={"unreachable": reason})
        compressed = compress_model(replace(self.session, settings=settings), settings, strict=False)
        student, found = compressed.student, compressed.calibration
        measured = run.measure(self.session, f"Evaluating {method} at {budget}", student, self.settings.split)
        return point.model_copy(
            update={
                "threshold_scale": found.threshold_scale,
                "share_val": found.gflops / compressed.target.dense,
                "gflops": float(measured.gflops(student).mean()),
                "scores": self._scores(measured),
                "latency": self._latency(student) if self.settings.time else None,
                "seconds": time.monotonic() - started,
            }
        )

    def _scores(self, measured: run.Measured) -> list[float]:
        if not self.session.labelled:
            return agreement(self._dense_measured(), measured)
        measured = compared(self.session, self._dense_measured(), measured)
        require_labels(self.session, measured)
        return [float(score) for score in measured.scores]

    def _latency(self, student: Prunable) -> LatencyPart:
        size = self.session.settings.batch_size
        batches = batching.full_batches(self.session, self.settings.split, size, timing.BATCHES)
        return timing.latency(self.teacher, student, batches, self.session.compute, progress=self.session.progress)

    def _row(
        self,
        points: list[ComparisonPoint],
        dense: ComparisonPoint,
        madtp: list[ComparisonPoint] | None,
        budget: BudgetRequest | None,
    ) -> ComparisonRow:
        first = points[0]
        row = ComparisonRow(method=first.method, budget=first.budget, seeds=[point.seed for point in points])
        reasons = [point.unreachable for point in points if point.unreachable is not None]
        if reasons:
            return row.model_copy(update={"unreachable": reasons[0]})
        scores, gflops = _mean(points), sum(point.gflops for point in points) / len(points)
        times = [point.latency for point in points if point.latency is not None]
        to_madtp = _mean(madtp) if madtp and not any(point.unreachable for point in madtp) else None
        return row.model_copy(
            update={
                "gflops": gflops,
                "share": gflops / dense.gflops,
                "within_budget": self._is_met(budget, gflops),
                "quality": self._quality(scores),
                "quality_of_seeds": [self._quality(point.scores) for point in points],
                "to_dense": None if first.method == DENSE else self._difference(dense.scores, scores),
                "to_madtp": None if to_madtp is None else self._difference(to_madtp, scores),
                "milliseconds": sum(part.pruned_ms or 0.0 for part in times) / len(times) if times else None,
                "speedup": sum(part.speedup or 0.0 for part in times) / len(times) if times else None,
            }
        )

    def _is_met(self, budget: BudgetRequest | None, gflops: float) -> bool | None:
        if budget is None:
            return None
        target = resolve(budget, float(sample_costs.dense_gflops(self.session, self.settings.split).mean()))
        return abs(gflops - target.gflops) <= TOLERANCE * target.gflops

    def _quality(self, scores: list[float]) -> float:
        return float(self.session.task.quality(scores)) if self.session.labelled else 100 * sum(scores) / len(scores)

    def _difference(self, before: list[float], after: list[float]) -> DifferencePart:
        change, ends, unit = paired_difference(self.session, before, after)
        return DifferencePart(change=change, interval95=Interval.of(ends), unit=unit)


def _mean(points: list[ComparisonPoint]) -> list[float]:
    """Return the mean score of each sample over the seeds."""
    return [sum(scores) / len(points) for scores in zip(*(point.scores for point in points), strict=True)]


def _mark_dominated(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    """Return the rows with `dominated` set."""
    known = [(row.gflops, row.quality) for row in rows if row.gflops is not None and row.quality is not None]
    return [
        row.model_copy(update={"dominated": is_dominated((row.gflops, row.quality), known)})
        if row.gflops is not None and row.quality is not None
        else row
        for row in rows
    ]
