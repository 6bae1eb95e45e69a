"""Questions about a scene and their answers, for VQA.

Answers are written as VQA's normalisation writes them, with figures ("7") and without articles ("top left"), so that
normalisation does not change them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from madtp_cli.scenes.composition import MAX_THINGS, PLACES, Phrase, Scene, has_clear_place, pick, place_name
from madtp_cli.scenes.painting import COLOURS, DIGITS, SHAPES, Thing

#: All answers to each kind of question.
ANSWERS: dict[str, tuple[str, ...]] = {
    "existence": ("yes", "no"),
    "colour": tuple(COLOURS),
    "identity": (*map(str, range(len(DIGITS))), *SHAPES),
    "count": tuple(map(str, range(MAX_THINGS + 1))),
    "position": tuple(name for row in PLACES for name in row),
}


@dataclass(frozen=True)
class Question:
    """A question with its kind, its answer, and the phrase it is about."""

    kind: str
    text: str
    answer: str
    phrase: Phrase


def answers() -> list[str]:
    """Return all answers, sorted: the answer list that a model ranks."""
    return sorted({answer for of_kind in ANSWERS.values() for answer in of_kind})


def question_text(kind: str, phrase: Phrase) -> str:
    """Return the question for the existence, colour, identity, count or position of what a phrase describes."""
    name = phrase.text()
    return {
        "existence": f"is there {'an' if name == 'eight' else 'a'} {name}",
        "colour": f"what colour is the {name}",
        "identity": f"what is the {name}",
        "count": f"how many {phrase.text(plural=True)} are there",
        "position": f"where is the {name}",
    }[kind]


def answer(kind: str, phrase: Phrase, scene: Scene) -> str | None:
    """Return the answer for a scene.

    None if a question with "the" does not fit, because the phrase does not describe exactly one thing, or if people
    could disagree on the place.
    """
    matching = [thing for thing in scene.things if phrase.matches(thing)]
    if kind == "existence":
        return "yes" if matching else "no"
    if kind == "count":
        return str(len(matching))
    if len(matching) != 1 or (kind == "position" and not has_clear_place(matching[0])):
        return None
    thing = matching[0]
    return {"colour": thing.colour, "identity": _identity(thing), "position": place_name(thing)}[kind]


def _identity(thing: Thing) -> str:
    return str(DIGITS.index(thing.noun)) if thing.is_digit else thing.noun


def phrases(kind: str) -> list[Phrase]:
    """Return the phrases that a kind of question can be about; they tell nothing about the answer."""
    nouns, colours = (*DIGITS, *SHAPES), tuple(COLOURS)
    coloured = [Phrase(None, colour) for colour in colours]
    if kind == "identity":
        return coloured
    if kind == "count":
        # "things" is left out, because no scene has zero things.
        return [Phrase("digit"), Phrase("shape"), *coloured]
    named = [Phrase(noun) for noun in nouns]
    if kind == "colour":
        return named
    return [*named, *coloured, *(Phrase(noun, colour) for noun in nouns for colour in colours)]


def questions(scene: Scene) -> list[Question]:
    """Return every question that has an answer for a scene, by kind; most existence questions have the answer "no"."""
    candidates = [(kind, phrase, answer(kind, phrase, scene)) for kind in ANSWERS for phrase in phrases(kind)]
    return [
        Question(kind, question_text(kind, phrase), given, phrase)
        for kind, phrase, given in candidates
        if given is not None
    ]


def draw(rng: random.Random) -> Question:
    """Return a random question: its kind, then one of the answers of this kind, then its phrase."""
    kind = pick(rng, tuple(ANSWERS))
    wanted, phrase = pick(rng, ANSWERS[kind]), pick(rng, phrases(kind))
    return Question(kind, question_text(kind, phrase), wanted, phrase)


def example_texts() -> Iterator[str]:
    """Yield every question and every answer."""
    yield from (question_text(kind, phrase) for kind in ANSWERS for phrase in phrases(kind))
    yield from answers()
