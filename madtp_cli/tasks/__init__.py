"""The tasks: what a model predicts and how that is scored. One task per file, which has an object `TASK`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from madtp_cli.errors import UsageError
from madtp_cli.tasks._interface import (
    ComparingTask,
    DenseComparingTask,
    DescribingTask,
    GroupingTask,
    MatchingTask,
    ModelTask,
    PreparingTask,
    RankingTask,
    Task,
    TaskResult,
    TemplateTask,
)

if TYPE_CHECKING:
    from madtp_cli.data.dataset import Dataset, Row

__all__ = [
    "ComparingTask",
    "DenseComparingTask",
    "DescribingTask",
    "GroupingTask",
    "MatchingTask",
    "ModelTask",
    "PreparingTask",
    "RankingTask",
    "Task",
    "TaskResult",
    "TemplateTask",
    "answer",
    "certainly_cut",
    "describe",
    "get",
    "names",
    "prepared",
    "right_answer",
]


def names() -> list[str]:
    """Return the names of all tasks, without importing one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get(name: str) -> Task:
    """Return the task of this name.

    Raises:
        UsageError: There is no such task.
    """
    if name not in names():
        raise UsageError(f"There is no task {name!r}.\nChoose one of: {', '.join(names())}.")
    return cast(Task, importlib.import_module(f"{__name__}.{name}").TASK)


def certainly_cut(name: str, rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return, by family, the texts of some rows of which a model for the task reads only a part.

    The number of words shows it; which other texts are cut depends on a checkpoint and its tokenizer.
    """
    from madtp_cli.tasks import _texts

    return _texts.certainly_cut(get(name).texts(rows))


def prepared(
    name: str,
    processor: Any,
    data: Dataset,
    k_test: int | None = None,
    *,
    config: Any = None,
    match_score: str | None = None,
    templates: Sequence[str] = (),
) -> Task:
    """Return the task of this name, prepared for a model's processor and a data set.

    Args:
        name: The task.
        processor: Has the tokenizer of the model.
        data: Has the list of possible answers, if there is one.
        k_test: Candidates to score in full; the task's default if None.
        config: The model's configuration; None for the conventions of the published models.
        match_score: Score of a match that ranks pairs, "logit" or "log-odds"; the task's default if None.
        templates: Texts in which {} stands for the name of a class; the task's default if empty.

    Raises:
        UsageError: There is no such task, or it has no candidates, no matches or no classes.
    """
    task = get(name)
    if k_test is not None:
        if not isinstance(task, RankingTask):
            raise UsageError(f"The task {name} has no candidates to rank.\nLeave out --k-test.")
        task = task.with_candidates(k_test)
    if match_score is not None:
        if not isinstance(task, MatchingTask):
            raise UsageError(f"The task {name} matches no pairs.\nLeave out --match-score.")
        task = task.with_match_score(match_score)
    if templates:
        if not isinstance(task, TemplateTask):
            raise UsageError(f"The task {name} has no classes.\nLeave out --templates.")
        task = task.with_templates(templates)
    return task.for_model(config, processor, data.answers) if isinstance(task, ModelTask) else task


def describe(task: Task, prediction: Any, texts: Sequence[str] = ()) -> str:
    """Return a prediction in words; `texts` are those that the model chooses from, if it does."""
    return task.describe(prediction, texts) if isinstance(task, DescribingTask) else str(prediction)


def answer(task: Task, model: Any, predictions: list[Any], row: Row) -> str:
    """Return the answer of a model to a single sample in words, from its predictions."""
    if isinstance(task, ComparingTask):
        return task.compare(model, predictions, row.references or (row.text,))
    return describe(task, task.score(model, predictions, (row,)).answers[0])


def right_answer(task: Task, row: Row) -> str:
    """Return the label of a row in words: its label, its different references, or "" if it has none."""
    if row.label is not None:
        return describe(task, row.label)
    return " / ".join(dict.fromkeys(row.references))
