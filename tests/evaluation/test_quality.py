"""The quality of a model and its change: groups of samples that share an image widen the intervals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from madtp_cli import tasks
from madtp_cli.config import RunSettings
from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.data.image_sources import ImageFile
from madtp_cli.errors import DataError
from madtp_cli.evaluation import quality
from madtp_cli.evaluation.intervals import interval95, paired_interval95
from madtp_cli.evaluation.run import Measured
from madtp_cli.flops.counts import TokenCounts
from madtp_cli.reporting.schema import AGREEMENT, Interval
from madtp_cli.scenes import TASKS, splits
from madtp_cli.tasks import TaskResult

#: Images of the data below, and questions about each.
IMAGES, QUESTIONS = 20, 4


def row(number: int, *images: str, **fields: Any) -> Row:
    """Return a row with these images."""
    return Row(str(number), tuple(ImageFile(Path(image)) for image in images), "what", **fields)


def vqa_rows(questions: int = QUESTIONS) -> list[Row]:
    """Return rows about 20 images, the rows of an image one after the other."""
    return [row(n, f"{n // questions}.png", references=("yes",)) for n in range(IMAGES * questions)]


def session(task: str, rows: list[Row], labelled: bool = True) -> Any:
    """Return the parts of a session that the quality needs."""
    data, settings = Dataset(task, "here", {"test": rows}), RunSettings(split="test")
    return SimpleNamespace(task=tasks.get(task), data=data, settings=settings, labelled=labelled)


def measured(answers: list[Any], scores: list[float], samples: int, **fields: Any) -> Measured:
    """Return a measurement with these answers and scores."""
    counts = TokenCounts.dense(np.ones((samples, 1), int), 1)
    return Measured(TaskResult(answers, scores, **fields), {"vision": counts}, None)  # type: ignore[arg-type]


def width(interval: Interval) -> float:
    """Return the width of an interval."""
    return interval.high - interval.low


def ends(interval: Interval) -> tuple[float, float]:
    """Return both ends of an interval."""
    return interval.low, interval.high


def test_rows_that_share_an_image_are_one_group() -> None:
    """Directly, or through a third row, as NLVR2 pairs do."""
    rows = [row(0, "a", "b"), row(1, "c", "d"), row(2, "b", "e"), row(3, "e", "f"), row(4, "d", "c")]
    assert quality.row_groups(rows) == [0, 1, 0, 0, 1]
    assert quality.row_groups([row(0, "a", "b"), row(1, "a", "b"), row(2, "b")]) == [0, 0, 0]


def test_several_questions_per_image_give_a_wider_interval() -> None:
    """All questions of an image are correct or wrong together, so 80 questions are worth 20."""
    scores = [float(number // QUESTIONS % 4 > 0) for number in range(IMAGES * QUESTIONS)]
    answers = ["yes" if score else "no" for score in scores]
    shared = quality.quality(session("vqa", vqa_rows()), measured(answers, scores, len(scores)))
    single = quality.quality(
        session("vqa", [row(n, f"{n}.png", references=("yes",)) for n in range(len(scores))]),
        measured(answers, scores, len(scores)),
    )
    assert (shared.samples, shared.groups) == (80, 20)
    assert (single.samples, single.groups) == (80, 80)
    assert shared.value == single.value == 75
    assert ends(single.interval95) == interval95(scores)
    assert ends(shared.interval95) == pytest.approx(interval95(scores[::QUESTIONS]))
    assert width(shared.interval95) > 1.5 * width(single.interval95)


def test_the_interval_of_a_change_uses_groups() -> None:
    """Pruning changes the answers to all questions about an image."""
    dense = [1.0] * (IMAGES * QUESTIONS)
    pruned = [float(number // QUESTIONS % 5 > 0) for number in range(IMAGES * QUESTIONS)]
    runs = [measured(["yes"] * len(scores), scores, len(scores)) for scores in (dense, pruned)]
    change = quality.change(session("vqa", vqa_rows()), *runs)
    assert (change.samples, change.groups, change.change) == (80, 20, -20)
    assert ends(change.interval95) == pytest.approx(paired_interval95(dense[::QUESTIONS], pruned[::QUESTIONS]))


def test_the_interval_of_an_agreement_uses_groups() -> None:
    """In retrieval an image and its captions are queries, and all of them are one group."""
    rows = [row(n, f"{n}.png", references=("a", "b")) for n in range(IMAGES)]
    samples = [*range(IMAGES), *[n for n in range(IMAGES) for _ in range(2)]]
    dense = list(range(3 * IMAGES))
    pruned = [answer if sample % 4 else -1 for answer, sample in zip(dense, samples, strict=True)]
    runs = [measured(answers, [], IMAGES, answer_samples=samples) for answers in (dense, pruned)]
    change = quality.change(session("retrieval", rows, labelled=False), *runs)
    assert (change.metric, change.samples, change.groups, change.pruned) == (AGREEMENT, 20, 20, 75)
    by_image = [float(n % 4 > 0) for n in range(IMAGES)]
    assert ends(change.interval95) == pytest.approx(paired_interval95([1.0] * IMAGES, by_image))


@pytest.mark.parametrize("task", TASKS)
def test_each_row_of_the_built_in_scenes_is_a_group(task) -> None:
    """So the intervals on scenes are those of independent samples."""
    rows = splits.read(task, ["val"]).split("val")[:40]
    assert len(set(quality.row_groups(rows))) == len(rows)


def test_a_missing_label_is_an_error() -> None:
    """A quality on a part of the samples would not be comparable."""
    result = measured(["yes"] * 80, [1.0] * 79, 80, unlabelled=1)
    with pytest.raises(DataError, match="Only 79 of 80 test samples"):
        quality.quality(session("vqa", vqa_rows()), result)


def test_a_missing_label_is_found_before_the_run() -> None:
    """A compression would otherwise end without a result after its fine-tuning."""
    rows = vqa_rows()
    quality.require_labelled_rows(session("vqa", rows))
    without = [*rows[1:], replace(rows[0], references=())]
    with pytest.raises(DataError, match="Only 79 of 80 test samples"):
        quality.require_labelled_rows(session("vqa", without))
    quality.require_labelled_rows(session("vqa", without, labelled=False))
    with pytest.raises(DataError, match="Only 0 of 1 test samples"):
        quality.require_labelled_rows(session("nlvr2", [row(0, "a.png", "b.png")]))
    quality.require_labelled_rows(session("retrieval", [row(0, "a.png")]))
