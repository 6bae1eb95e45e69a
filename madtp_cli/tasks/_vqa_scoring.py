"""What every form of visual question answering has in common: its names and its score."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

from madtp_cli.data.dataset import Row
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.metrics.vqa import soft_score
from madtp_cli.tasks import TaskResult


class VqaScoring:
    """The score of answers to questions."""

    name = "vqa"
    schema = "questions"
    title = "Visual question answering (VQAv2)"
    pipeline_tag = "visual-question-answering"
    metric = "VQA accuracy"
    unit = "percent"
    shares, relative = True, False

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """Return the score of each answer, 0 to 1, by the official rule, see `metrics.vqa.soft_score`."""
        pairs = zip(predictions, rows, strict=False)
        scores = [soft_score(answer, row.references) for answer, row in pairs if row.references]
        return TaskResult(predictions, scores, len(predictions) - len(scores))

    def quality(self, scores: Sequence[float]) -> float:
        """Return the VQA accuracy in percent."""
        return 100 * fsum(scores) / len(scores)
