"""The built-in data sets: one per task, of scenes drawn when they are asked for."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Collection, Sequence
from typing import overload

from madtp_cli.data.dataset import Dataset, Row
from madtp_cli.errors import UsageError
from madtp_cli.scenes.generator import (
    SPLITS,
    answers,
    captions,
    draw_captioned,
    draw_pair,
    draw_question,
    long_caption,
    placed_captions,
)

SIZES = {"train": 20_000, "val": 1_000, "test": 2_000}
#: Fewer, as every text is compared with every image.
RETRIEVAL_SIZES = SIZES | {"val": 500, "test": 1_000}
#: As VQA has ten people answer. Here they agree: ten times the true answer.
ANSWERERS = 10


class SceneRows(Sequence[Row]):
    """Rows of one split; item i is the same whatever the length, and drawn on demand."""

    def __init__(self, stream: str, split: str, numbers: range) -> None:
        """Take the rows with these numbers of a data set's stream."""
        self.stream, self.split, self.numbers = stream, split, numbers

    def __len__(self) -> int:
        """Rows there are; none is drawn for it."""
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> SceneRows: ...

    def __getitem__(self, index: int | slice) -> Row | SceneRows:
        """A row, drawn now, or some of them, still undrawn."""
        if isinstance(index, slice):
            return SceneRows(self.stream, self.split, self.numbers[index])
        return _row(self.stream, self.split, self.numbers[index])


@functools.lru_cache(maxsize=4096)
def _row(stream: str, split: str, number: int) -> Row:
    # For NLVR2 the stream that `scenes.pairs` draws item `number` from.
    return _STREAMS[stream](f"scenes/{split}/{number}", split, random.Random(f"{stream}/{split}/0/{number}"))


def _pair(identifier: str, split: str, rng: random.Random) -> Row:
    pair = draw_pair(split, rng)
    statement = pair.statement  # holds a function, so the row takes only its words: rows travel to worker processes
    return Row(identifier, (pair.left, pair.right), statement.text, int(pair.label), statement.kind)


def _question(identifier: str, split: str, rng: random.Random) -> Row:
    scene, question = draw_question(split, rng)
    references = (question.answer,) * ANSWERERS
    return Row(identifier, (scene,), question.text, kind=question.kind, references=references)


def _captioned(identifier: str, split: str, rng: random.Random) -> Row:
    scene = draw_captioned(split, rng)
    said = tuple(captions(scene))
    return Row(identifier, (scene,), said[0], references=said)


def _placed(identifier: str, split: str, rng: random.Random) -> Row:
    scene = draw_captioned(split, rng, (2, 3))
    said = tuple(placed_captions(scene))
    return Row(identifier, (scene,), said[0], references=said)


def _long(identifier: str, split: str, rng: random.Random) -> Row:
    scene = draw_captioned(split, rng, (3, 4))
    said = long_caption(scene)
    return Row(identifier, (scene,), said, references=(said,))


_STREAMS: dict[str, Callable[[str, str, random.Random], Row]] = {
    "nlvr2": _pair,
    "vqa": _question,
    "caption": _captioned,
    "retrieval": _placed,
    "retrieval/1": _long,
}
TASKS = tuple(stream for stream in _STREAMS if "/" not in stream)


def sizes(task: str) -> dict[str, int]:
    """Rows of each split of a task."""
    return dict(RETRIEVAL_SIZES if task == "retrieval" else SIZES)


def rows(task: str, split: str, number: int, captions: int | None = None) -> SceneRows:
    """The first rows of a split.

    Args:
        task: One of `TASKS`.
        split: One of `SPLITS`.
        number: Rows there shall be.
        captions: Captions of an image, for retrieval: 5, or 1 for other scenes with a long one each.

    Raises:
        UsageError: The scenes have no such task, or not so many captions.
    """
    if task not in TASKS:
        raise UsageError(
            f"The built-in scenes have no data for task {task!r}; they have {', '.join(TASKS)}.\n"
            "Choose one of these tasks, or give your own data with --data."
        )
    if captions is not None and (task != "retrieval" or captions not in (1, 5)):
        raise UsageError(
            f"The built-in scenes have no {task} data with --captions {captions}.\n"
            "Give --captions 5 or 1 with --task retrieval, and leave it out with other tasks."
        )
    return SceneRows("retrieval/1" if captions == 1 else task, split, range(number))


def read(task: str, splits: Collection[str] = SPLITS, captions: int | None = None) -> Dataset:
    """The built-in data set of a task; `captions` as for `rows`."""
    number = sizes(task)
    drawn: dict[str, Sequence[Row]] = {
        split: rows(task, split, number[split], captions) for split in SPLITS if split in splits
    }
    return Dataset(task, "the built-in scenes", drawn, answers=tuple(answers()) if task == "vqa" else ())
