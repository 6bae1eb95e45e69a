"""The built-in data set: composed pictures of handwritten digits and coloured shapes.

A scene is a list of things (what, which colour, where), so it knows its captions, its
questions with answers, and whether a statement about a pair of scenes is true. The
handwriting is real (see NOTICE) and split by original sample before composing: no
train digit appears in a val or test picture. Everything is drawn from `random.random()`
alone, whose stream Python guarantees, so a seed gives the same data everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

# The `as` names are part of this module for whoever draws scenes: what they are made of, and what is said of them.
from madtp_cli.scenes import captions as _captions
from madtp_cli.scenes import questions as _questions
from madtp_cli.scenes import statements as _statements
from madtp_cli.scenes.captions import captions as captions
from madtp_cli.scenes.captions import long_caption as long_caption
from madtp_cli.scenes.captions import placed_captions as placed_captions
from madtp_cli.scenes.composition import COUNTS as COUNTS
from madtp_cli.scenes.composition import MAX_THINGS as MAX_THINGS
from madtp_cli.scenes.composition import SPLITS as SPLITS
from madtp_cli.scenes.composition import Phrase as Phrase
from madtp_cli.scenes.composition import Scene as Scene
from madtp_cli.scenes.composition import draw_scene as draw_scene
from madtp_cli.scenes.composition import is_clear, pick
from madtp_cli.scenes.composition import rewritten as rewritten
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
    """One NLVR2-like item: two scenes and a statement that is true of them or not."""

    left: Scene
    right: Scene
    statement: Statement
    label: bool


def _for_training(scene: Scene, rng: random.Random) -> Scene:
    return rewritten(scene, rng) if scene.split == "train" else scene


def draw_pair(split: str, rng: random.Random) -> Pair:
    """Draw a statement, then its truth, then scenes that make it so.

    The truth is a fair coin that knows nothing of the sentence, so no kind of
    statement can be solved from the text alone. Train digits are `rewritten`.
    """
    statement = _statements.draw(pick(rng, KINDS), rng)
    label = rng.random() < 0.5
    while True:
        left, right = (draw_scene(split, rng, statement.phrase) for _ in range(2))
        if statement.holds(left, right) == label:
            return Pair(_for_training(left, rng), _for_training(right, rng), statement, label)


def draw_statements(left: Scene, right: Scene, number: int, rng: random.Random) -> list[tuple[Statement, bool]]:
    """Draw more statements about one pair, as many true as false where it can be had.

    Their words and their truth are slightly dependent: fit for teaching, not for testing.
    """
    drawn: list[tuple[Statement, bool]] = []
    while len(drawn) < number:
        label = rng.random() < 0.5
        for _ in range(8):
            kind = pick(rng, KINDS)
            seen = left.things + right.things
            near = [t for t in seen if kind not in ("shape", "digit") or t.is_digit == (kind == "digit")]
            thing = pick(rng, near) if near and rng.random() < 0.8 else None
            if thing and kind == "bound" and rng.random() < 0.5:
                thing = replace(thing, colour=pick(rng, tuple(COLOURS)))
            statement = _statements.draw(kind, rng, thing)
            if statement.holds(left, right) == label:
                break
        drawn.append((statement, statement.holds(left, right)))
    return drawn


def pairs(split: str, number: int, seed: int = 0) -> Iterator[Pair]:
    """Yield the first `number` pairs of a split; item i is the same whatever the number."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    for index in range(number):
        yield draw_pair(split, random.Random(f"nlvr2/{split}/{seed}/{index}"))


def draw_question(split: str, rng: random.Random) -> tuple[Scene, Question]:
    """Draw an answer, then a question, then a scene that gives it: of the answer the question alone says nothing.

    Train digits are `rewritten`.
    """
    question = _questions.draw(rng)
    while True:
        # Only the question shapes the scene. Were the answer to, the commonest colour would often be right.
        scene = draw_scene(split, rng, question.phrase)
        if _questions.answer(question.kind, question.phrase, scene) == question.answer:
            return _for_training(scene, rng), question


def draw_captioned(split: str, rng: random.Random, numbers: Collection[int] | None = None) -> Scene:
    """Draw a scene to be captioned, train digits `rewritten`.

    With `numbers` it has so many things, each at a place that people agree on, and so tells itself from others.
    """
    while True:
        scene = draw_scene(split, rng)
        if numbers is None or (len(scene.things) in numbers and all(map(is_clear, scene.things))):
            return _for_training(scene, rng)


def vocabulary() -> list[str]:
    """Every word that a text of any task can have, sorted: what a tokenizer for the scenes must know."""
    texts = (*_statements.sayings(), *_questions.sayings(), *_captions.sayings())
    return sorted({word for text in texts for word in text.split()})
