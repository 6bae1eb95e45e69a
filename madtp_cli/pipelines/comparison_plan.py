"""The plan of `madtp compare`: its points are compressions that are not saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from madtp_cli import processes
from madtp_cli.compression import compress_model
from madtp_cli.compression.announcement import Compression
from madtp_cli.compression.budget import resolve
from madtp_cli.compression.stage_titles import EVALUATING, MATCHING
from madtp_cli.compression.student import dense_teacher, prunable_student
from madtp_cli.config import BudgetRequest, CompareSettings
from madtp_cli.evaluation import batching, sample_costs
from madtp_cli.evaluation.planning import evaluation_stages
from madtp_cli.evaluation.session import Session
from madtp_cli.pipelines import planning
from madtp_cli.pipelines.compare import open_session
from madtp_cli.pipelines.comparison_points import FOLDER, open_points, point_name, seeds_of
from madtp_cli.pipelines.comparison_reach import unreachable
from madtp_cli.progress import PlannedStage, ProgressReporter
from madtp_cli.reporting.comparison import CONTROL, DENSE
from madtp_cli.reporting.plan import PlanReport

#: Bytes of the file of a point for each sample: its score and its answer as text.
POINT_BYTES_PER_SAMPLE = 40


def compare(source: Path, settings: CompareSettings, progress: ProgressReporter | None = None) -> PlanReport:
    """Plan `madtp compare`. Its arguments and errors are those of `pipelines.compare.compare`."""
    processes.require_one("compare")
    session = open_session(source, settings, progress or ProgressReporter())
    files, reasons = open_points(source, session, settings, create=False), unreachable(session, settings)
    output = files.folder
    files.check([DENSE, *(name for _, _, names in _groups(settings, {}) for name in names)])
    stages, missing = list[PlannedStage](), 0
    if _missing([DENSE], output):
        stages += evaluation_stages(session, EVALUATING[0], MATCHING[0], dense_teacher(session.model), measured=True)
        missing += 1
    for title, budget, names in _groups(settings, reasons):
        points = _missing(names, output)
        missing += len(points)
        if points:
            seconds = len(points) * _seconds(session, settings, budget)
            stages.append(PlannedStage(f"{title}: {len(points)}", seconds))
    point = settings.point(settings.all_methods()[0], settings.budgets[0], settings.seed)
    memory = planning.compress_bytes(session, compress_model.planned_training(session, point), 1.0)
    samples = len(batching.rows(session, settings.split))
    size = missing * samples * POINT_BYTES_PER_SAMPLE
    report = planning.plan("compare", source, session, stages, memory, output, size)
    notes = [f"{method} at {budget}: {reason}" for (method, budget), reason in reasons.items()]
    return report.model_copy(update={"notes": [*report.notes, *notes]})


def _groups(
    settings: CompareSettings, reasons: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, BudgetRequest, list[str]]]:
    """Yield what points cost about the same time: a title, their budget and their names. First the fine-tuned controls.

    A control is not calibrated, so its time is a little shorter than that of a point at the dense cost. Points with a
    reason why they cannot be reached are left out.
    """
    seeds, dense = settings.all_seeds(), BudgetRequest.parse(1)
    if settings.point("madtp", dense, 0).number_of_steps(0):
        yield "fine-tuned dense models", dense, [f"{CONTROL}-{seed}" for seed in seeds]
    for budget in settings.budgets:
        methods = [method for method in settings.all_methods() if (method, budget.text) not in reasons]
        names = [point_name(method, budget, seed) for method in methods for seed in seeds_of(settings, method)]
        yield f"points at {budget.text}", budget, names


def _missing(names: list[str], output: Path) -> list[str]:
    """Return the names of the points that no file has yet."""
    return [name for name in names if not (output / FOLDER / f"{name}.json").exists()]


def _seconds(session: Session, settings: CompareSettings, budget: BudgetRequest) -> float:
    """Return the seconds of one point, which are about the same for all methods."""
    point = settings.point(settings.all_methods()[0], budget, settings.seed)
    target = resolve(budget, float(sample_costs.dense_gflops(session, "val").mean()))
    student, training = prunable_student(session.model, point.method), compress_model.planned_training(session, point)
    compression = Compression(session, student, dense_teacher(session.model), target, training)
    return sum(stage.seconds for stage in planning.compress_stages(compression))
