"""What a model is asked to do: one task per file, which holds an object `TASK`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from madtp_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from madtp_cli.data.dataset import Dataset, Row
    from madtp_cli.execution.text_runs import OnTextRun


@dataclass(frozen=True)
class TaskResult:
    """What a model answered to each sample, as can be compared, and how right it was.

    `scores` has one number for each thing that is scored (a sample, or a query of retrieval), such that
    `Task.quality` is their mean in the task's unit; `unlabelled` counts samples that could not be scored.
    `parts` are further figures for which papers have a column, by name, in percent.
    """

    answers: list[Any]
    scores: list[float]
    unlabelled: int = 0
    parts: dict[str, float] = field(default_factory=dict)


class Task(Protocol):
    """What a file here offers.

    `unit` is that of `quality`, "percent" for all but CIDEr, which is 100 times the mean of the scores for all.
    `shares` says that each score is a share of right, 0 to 1; `relative` that a change is told in percent of
    what was before, and not in points. `answering` says what is run beside the forward to find an answer, if
    anything is; whoever is `heard` is told of each run. `pipeline_tag` is what model hubs file such models under.
    """

    name: str
    schema: str
    title: str
    pipeline_tag: str
    metric: str
    unit: str
    shares: bool
    relative: bool

    @property
    def answering(self) -> str:
        """In some words, for a line of figures."""
        ...

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Make the arguments of the model's forward, one row of each per sample.

        "labels" are there if every row has what the task's loss needs. Names with a dot ("judge.input_ids")
        are no arguments of the forward, but for `evidence`.
        """
        ...

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Tokens of each row's texts as `collate` would make them, by the tower that reads them."""
        ...

    def predictions(self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ...) -> list[Any]:
        """What `judge` needs of each sample of a batch, given the forward's output; may run the model further."""
        ...

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ...
    ) -> TaskResult:
        """Answers and scores of all samples of a split; `rows` is empty where labels do not count."""
        ...

    def quality(self, scores: Sequence[float]) -> float:
        """The metric over all scores, in its unit."""
        ...


@runtime_checkable
class GenerativeTask(Protocol):
    """A task whose answers are words."""

    def writing(self, tokenizer: Any, answers: Sequence[str]) -> Task:
        """The task with the tokenizer that reads a model's words, and the answers to choose from, if any."""
        ...


@runtime_checkable
class RankingTask(Protocol):
    """A task whose answers are chosen among candidates, of which few are looked at closely."""

    def choosing(self, k_test: int) -> Task:
        """The task that looks closely at so many candidates."""
        ...


def names() -> list[str]:
    """Every task there is; imports none of them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get(name: str) -> Task:
    """The task of this name.

    Raises:
        UsageError: There is none.
    """
    if name not in names():
        raise UsageError(f"There is no task {name!r}.\nChoose one of: {', '.join(names())}.")
    return cast(Task, importlib.import_module(f"{__name__}.{name}").TASK)


def prepared(name: str, processor: Any, data: Dataset, k_test: int | None = None) -> Task:
    """The task of this name, for a model with this processor and these data; `k_test` as for `Choosing`.

    Raises:
        UsageError: There is none, or it has no candidates.
    """
    task = get(name)
    if k_test is not None:
        if not isinstance(task, RankingTask):
            raise UsageError(f"The task {name} has no candidates that --k-test could number.\nLeave it out.")
        task = task.choosing(k_test)
    return task.writing(processor.tokenizer, data.answers) if isinstance(task, GenerativeTask) else task
