"""The interface of a task, and protocols for what only some tasks can do, which are checked at run time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from madtp_cli.data.dataset import Row
    from madtp_cli.execution.text_runs import OnTextRun
    from madtp_cli.tasks._texts import TextKind


@dataclass(frozen=True)
class TaskResult:
    """The answers of a model to all samples of a split, and their scores.

    Attributes:
        answers: One answer per sample, or per query of retrieval; answers of two models can be compared by `==`.
        scores: One score per labelled sample, or per image of retrieval. `Task.quality` is their mean in the task's
            unit.
        unlabelled: Number of samples that have no label.
        parts: Further figures that papers report, by name, in percent.
        answer_samples: The sample of each answer, if there is not exactly one answer per sample.
        by_class: The scores of the samples of each class, if the samples have classes.
        embeddings: Normalised embeddings, [samples, width], if the task compares them with those of the dense model.
    """

    answers: list[Any]
    scores: list[float]
    unlabelled: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    answer_samples: list[int] | None = None
    by_class: dict[str, list[float]] = field(default_factory=dict)
    embeddings: Any = None


class Task(Protocol):
    """The interface of a task.

    Attributes:
        name: The task's name, which is the name of its file.
        title: The task's name in full.
        example: Code for the model card, which uses `model`, `processor` and `Image`.
        pipeline_tag: The tag of such models on the Hugging Face hub.
        metric: Name of the quality.
        unit: Unit of the quality: "percent", or "100 x CIDEr-D".
        shares: Whether each score is a share of correct, 0 to 1.
        relative: Whether a change is given in percent of the dense quality instead of in points.
    """

    name: str
    schema: str
    title: str
    example: str
    pipeline_tag: str
    metric: str
    unit: str
    shares: bool
    relative: bool

    @property
    def generation_cost_description(self) -> str:
        """What is run in addition to the forward pass to find an answer; empty if nothing is."""
        ...

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return the inputs of a forward pass for some rows.

        "labels" is there if every row has what the task's loss needs. Names with a dot ("captions.input_ids") are
        inputs of `predict`, not of the forward pass.
        """
        ...

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of each row's texts as `collate` encodes them, by the tower that reads them."""
        ...

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return the texts of the rows that a model reads, by kind; each kind knows how much of a text is read.

        Of no rows, return the texts that belong to no row, such as the answers to choose from.
        """
        ...

    def predict(self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ...) -> list[Any]:
        """Return a prediction for each sample of a batch.

        Args:
            model: The model.
            output: Output of its forward pass; the text tower may run again to generate or rank answers.
            batch: The collated batch.
            on_text_run: Called with each text run.
        """
        ...

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ...
    ) -> TaskResult:
        """Return the answers and scores of all samples of a split.

        Args:
            model: The model.
            predictions: The predictions of all batches in order.
            rows: The rows of the split; empty if their labels do not apply to the model.
            on_text_run: Called with each text run.
        """
        ...

    def quality(self, scores: Sequence[float]) -> float:
        """Return the metric over all scores, in its unit."""
        ...


@runtime_checkable
class ModelTask(Protocol):
    """A task that needs the model's processor, its configuration, or the answers to choose from."""

    def for_model(self, config: Any, processor: Any, answers: Sequence[str]) -> Task:
        """Return the task for a model.

        Args:
            config: The model's configuration.
            processor: Its processor.
            answers: The answers to choose from; empty for any text.
        """
        ...


@runtime_checkable
class RankingTask(Protocol):
    """A task that ranks candidates and scores only the best of them in full."""

    def with_candidates(self, k_test: int) -> Task:
        """Return the task that scores `k_test` candidates in full."""
        ...


@runtime_checkable
class MatchingTask(Protocol):
    """A task that matches pairs to rank them."""

    def with_match_score(self, match_score: str) -> Task:
        """Return the task that ranks by this score of a match, "logit" or "log-odds"."""
        ...

    def pairs_to_match(self, model: Any, predictions: Sequence[Any]) -> int:
        """Return how many pairs `Task.score` matches; 0 if the model matches none."""
        ...

    def most_pairs(self, rows: Sequence[Row]) -> int:
        """Return how many pairs of some rows a model that matches pairs can match."""
        ...


@runtime_checkable
class TemplateTask(Protocol):
    """A task whose classes become texts by templates."""

    def with_templates(self, templates: Sequence[str]) -> Task:
        """Return the task with these templates, in which {} stands for the name of a class."""
        ...


@runtime_checkable
class PreparingTask(Protocol):
    """A task that gives a model something before it is used, such as the embeddings of all classes."""

    def prepare(self, model: Any) -> None:
        """Prepare a model that is on its device."""
        ...


@runtime_checkable
class DenseComparingTask(Protocol):
    """A task without labels: the score of a sample compares the result of a model with that of the dense model."""

    def compare_with(self, dense: TaskResult, result: TaskResult) -> list[float]:
        """Return the score of each sample from the results of the dense model and of any model."""
        ...


@runtime_checkable
class DescribingTask(Protocol):
    """A task whose predictions are numbers, which stand for words."""

    def describe(self, prediction: Any, texts: Sequence[str]) -> str:
        """Return a prediction for a sample in words; `texts` are those that the model chooses from, if it does."""
        ...


@runtime_checkable
class ComparingTask(Protocol):
    """A task that compares an image with texts, so a single sample has a similarity instead of an answer."""

    def compare(self, model: Any, predictions: list[Any], texts: Sequence[str]) -> str:
        """Return the best text for the image of a single sample, and its similarity, in words."""
        ...


@runtime_checkable
class GroupingTask(Protocol):
    """A task that learns from comparing the samples of a batch, so samples with similar texts share a batch."""

    def text_embeddings(
        self, model: Any, rows: Sequence[Row], processor: Any, on_rows: Callable[[int], None]
    ) -> Tensor:
        """Return the normalised embedding of the text of each row, [rows, width], on the CPU.

        `on_rows` is called with the number of rows that are done.
        """
        ...
