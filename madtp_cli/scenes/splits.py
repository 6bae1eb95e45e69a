"""The built-in data sets, one per task; scenes are generated when a row is accessed."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection, Sequence
from typing import overload

from madtp_cli.data import schemas
from madtp_cli.data.dataset import SPLITS, Dataset, Row
from madtp_cli.data.schemas import Schema
from madtp_cli.errors import UsageError
from madtp_cli.scenes import TASKS
from madtp_cli.scenes.generator import (
    answers,
    captions,
    draw_captioned,
    draw_pair,
    draw_question,
    long_caption,
    placed_captions,
)

#: Rows of each split.
SIZES = {"train": 20_000, "val": 1_000, "test": 2_000}
#: Fewer rows, because every text or image is compared with every image.
RETRIEVAL_SIZES = SIZES | {"val": 500, "test": 1_000}
#: Answers of a question. VQA has the answers of ten people; here, all ten are the right answer.
ANSWERS_PER_QUESTION = 10


class SceneRows(Sequence[Row]):
    """Rows of one split, generated on access; row i does not depend on the number of rows."""

    def __init__(self, stream: str, split: str, numbers: range) -> None:
        """Take some rows of a data set.

        Args:
            stream: A key of `_STREAMS`.
            split: The split.
            numbers: Numbers of the rows in the split.
        """
        self.stream, self.split, self.numbers = stream, split, numbers

    def __len__(self) -> int:
        """Return the number of rows without generating any."""
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> SceneRows: ...

    def __getitem__(self, index: int | slice) -> Row | SceneRows:
        """Return one row, or lazy rows for a slice."""
        if isinstance(index, slice):
            return SceneRows(self.stream, self.split, self.numbers[index])
        return _row(self.stream, self.split, self.numbers[index])


@functools.lru_cache(maxsize=4096)
def _row(stream: str, split: str, number: int) -> Row:
    # For NLVR2, the seed is the one that `generator.pairs` uses for pair `number`.
    return _STREAMS[stream](f"scenes/{split}/{number}", split, random.Random(f"{stream}/{split}/0/{number}"))


def _pair(identifier: str, split: str, rng: random.Random) -> Row:
    pair = draw_pair(split, rng)
    statement = pair.statement  # it holds a function, which cannot be pickled for worker processes
    return Row(identifier, (pair.left, pair.right), statement.text, int(pair.label), statement.kind)


def _question(identifier: str, split: str, rng: random.Random) -> Row:
    scene, question = draw_question(split, rng)
    references = (question.answer,) * ANSWERS_PER_QUESTION
    return Row(identifier, (scene,), question.text, kind=question.kind, references=references)


def _with_captions(identifier: str, split: str, rng: random.Random) -> Row:
    scene = draw_captioned(split, rng)
    texts = tuple(captions(scene))
    return Row(identifier, (scene,), texts[0], references=texts)


def _with_places(identifier: str, split: str, rng: random.Random) -> Row:
    scene = draw_captioned(split, rng, (2, 3))
    texts = tuple(placed_captions(scene))
    return Row(identifier, (scene,), texts[0], references=texts)


def _image(identifier: str, split: str, rng: random.Random) -> Row:
    return Row(identifier, (draw_captioned(split, rng, (2, 3)),), "")


def _with_long_caption(identifier: str, split: str, rng: random.Random) -> Row:
    scene = draw_captioned(split, rng, (3, 4))
    text = long_caption(scene)
    return Row(identifier, (scene,), text, references=(text,))


#: Makes a row from its identifier, its split and random numbers; "retrieval/1" has one caption per image.
_STREAMS: dict[str, Callable[[str, str, random.Random], Row]] = {
    "nlvr2": _pair,
    "vqa": _question,
    "caption": _with_captions,
    "retrieval": _with_places,
    "retrieval/1": _with_long_caption,
    "embedding": _image,
}
#: Schema of the rows of each task.
_SCHEMAS: dict[str, Schema] = {
    "nlvr2": schemas.STATEMENTS,
    "vqa": schemas.QUESTIONS,
    "caption": schemas.CAPTIONS,
    "retrieval": schemas.CAPTIONS,
    "embedding": schemas.IMAGES,
}


def sizes(task: str) -> dict[str, int]:
    """Return the number of rows of each split of a task."""
    return dict(RETRIEVAL_SIZES if task in ("embedding", "retrieval") else SIZES)


def rows(task: str, split: str, number: int, captions: int | None = None) -> SceneRows:
    """Return the first rows of a split.

    Args:
        task: One of `TASKS`.
        split: One of `SPLITS`.
        number: Number of rows.
        captions: Captions per image, for retrieval only: 5, or 1 for other scenes with one long caption each. None
            for the default of the task.

    Raises:
        UsageError: The scenes have no such task or no such number of captions.
    """
    _require_task(task)
    if captions is not None and (task != "retrieval" or captions not in (1, 5)):
        raise UsageError(
            f"The built-in scenes have no {task} data with --captions {captions}.\n"
            "Give --captions 5 or 1 with --task retrieval, and leave it out with other tasks."
        )
    return SceneRows("retrieval/1" if captions == 1 else task, split, range(number))


def read(task: str, splits: Collection[str] = SPLITS, captions: int | None = None) -> Dataset:
    """Return the built-in data set of a task.

    Args:
        task: One of `TASKS`.
        splits: The splits of the data set.
        captions: As for `rows`.

    Raises:
        UsageError: The scenes have no such task or no such number of captions.
    """
    _require_task(task)
    number = sizes(task)
    by_split: dict[str, Sequence[Row]] = {
        split: rows(task, split, number[split], captions) for split in SPLITS if split in splits
    }
    schema = _SCHEMAS[task]
    listed = tuple(answers()) if schema.answers else ()
    return Dataset(schema.name, "the built-in scenes", by_split, answers=listed, random_order=True)


def _require_task(task: str) -> None:
    if task not in TASKS:
        raise UsageError(
            f"The built-in scenes have no data for task {task!r}; they have {', '.join(TASKS)}.\n"
            "Choose one of these tasks, or give your own data with --data."
        )
