"""Generates the built-in data set: pictures of handwritten digits and coloured shapes.

A scene is a list of things with their nouns, colours and places. Its captions, its questions with answers, and whether
a statement about a pair of scenes is true follow from this list. The handwriting is real (see NOTICE), and each
original sample belongs to one split: no train digit appears in a val or test picture. All random numbers come from
`random.random()`, whose sequence for a seed is the same in every Python version, so a seed gives the same data
everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

# Names that are imported with `as` are part of this module's public interface.
from madtp_cli.data.dataset import SPLITS
from madtp_cli.scenes import captions as _captions
from madtp_cli.scenes import questions as _questions
from madtp_cli.scenes import statements as _statements
from madtp_cli.scenes.captions import captions as captions
from madtp_cli.scenes.captions import long_caption as long_caption
from madtp_cli.scenes.captions import placed_captions as placed_captions
from madtp_cli.scenes.composition import COUNTS as COUNTS
from madtp_cli.scenes.composition import MAX_THINGS as MAX_THINGS
from madtp_cli.scenes.composition import Phrase as Phrase
from madtp_cli.scenes.composition import Scene as Scene
from madtp_cli.scenes.composition import draw_scene as draw_scene
from madtp_cli.scenes.composition import has_clear_place, pick
from madtp_cli.scenes.composition import vary_handwriting as vary_handwriting
from madtp_cli.scenes.painting import COLOURS as COLOURS
from madtp_cli.scenes.painting import DIGITS as DIGITS
from madtp_cli.scenes.painting import IMAGE_SIZE as IMAGE_SIZE
from madtp_cli.scenes.painting import SHAPES as SHAPES
from madtp_cli.scenes.painting import Thing as Thing
from madtp_cli.scenes.painting import mask as mask
from madtp_cli.scenes.questions import Question as Question
from madtp_cli.scenes.questions import answers as answers
from madtp_cli.scenes.questions import questions as questions
from madtp_cli.scenes.statements import KINDS as KINDS
from madtp_cli.scenes.statements import Statement as Statement


@dataclass(frozen=True)
class Pair:
    """One sample as in NLVR2: two scenes and a statement, which is true or false for them."""

    left: Scene
    right: Scene
    statement: Statement
    label: bool


def _vary_train_digits(scene: Scene, rng: random.Random) -> Scene:
    return vary_handwriting(scene, rng) if scene.split == "train" else scene


def draw_pair(split: str, rng: random.Random) -> Pair:
    """Return a random statement with a random label and two random scenes that fit the label.

    The label is a fair coin that is independent of the statement, so the text alone tells nothing about it. The
    handwriting of train digits is varied, see `vary_handwriting`.
    """
    statement = _statements.draw(pick(rng, KINDS), rng)
    label = rng.random() < 0.5
    while True:
        left, right = (draw_scene(split, rng, statement.phrase) for _ in range(2))
        if statement.holds(left, right) == label:
            return Pair(_vary_train_digits(left, rng), _vary_train_digits(right, rng), statement, label)


def draw_statements(left: Scene, right: Scene, number: int, rng: random.Random) -> list[tuple[Statement, bool]]:
    """Return more random statements about one pair with their labels, about as many true as false ones.

    Label and text depend slightly on each other, so these statements are good for training but not for testing.
    """
    labelled: list[tuple[Statement, bool]] = []
    while len(labelled) < number:
        label = rng.random() < 0.5
        for _ in range(8):
            kind = pick(rng, KINDS)
            things = left.things + right.things
            fitting = [t for t in things if kind not in ("shape", "digit") or t.is_digit == (kind == "digit")]
            thing = pick(rng, fitting) if fitting and rng.random() < 0.8 else None
            if thing and kind == "bound" and rng.random() < 0.5:
                thing = replace(thing, colour=pick(rng, tuple(COLOURS)))
            statement = _statements.draw(kind, rng, thing)
            if statement.holds(left, right) == label:
                break
        labelled.append((statement, statement.holds(left, right)))
    return labelled


def pairs(split: str, number: int, seed: int = 0) -> Iterator[Pair]:
    """Yield the first `number` pairs of a split; pair i does not depend on the number."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    for index in range(number):
        yield draw_pair(split, random.Random(f"nlvr2/{split}/{seed}/{index}"))


def draw_question(split: str, rng: random.Random) -> tuple[Scene, Question]:
    """Return a random question with a random answer, and a random scene for which this answer is right.

    The question alone tells nothing about the answer. The handwriting of train digits is varied.
    """
    question = _questions.draw(rng)
    while True:
        # The scene depends on the question only. If it depended on the answer too, the most frequent colour in the
        # scene would often be the right answer.
        scene = draw_scene(split, rng, question.phrase)
        if _questions.answer(question.kind, question.phrase, scene) == question.answer:
            return _vary_train_digits(scene, rng), question


def draw_captioned(split: str, rng: random.Random, numbers: Collection[int] | None = None) -> Scene:
    """Return a random scene for captions; the handwriting of train digits is varied.

    Args:
        split: Split of the scene.
        rng: Source of random numbers.
        numbers: Allowed numbers of things. If given, every thing also has a clear place, so that captions with places
            distinguish the scenes. None allows every scene.
    """
    while True:
        scene = draw_scene(split, rng)
        if numbers is None or (len(scene.things) in numbers and all(map(has_clear_place, scene.things))):
            return _vary_train_digits(scene, rng)


def vocabulary() -> list[str]:
    """Return every word that a text of any task can contain, sorted: the vocabulary of a tokenizer for the scenes."""
    texts = (*_statements.example_texts(), *_questions.example_texts(), *_captions.example_texts())
    return sorted({word for text in texts for word in text.split()})
