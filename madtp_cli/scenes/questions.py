"""VQA: questions about a scene, and the answers it gives.

Answers stand as VQA's comparison leaves them: digits in figures ("7"), places without articles
("top left"), so that normalising changes none of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from madtp_cli.scenes.composition import MAX_THINGS, PLACES, Phrase, Scene, is_clear, pick, place
from madtp_cli.scenes.painting import COLOURS, DIGITS, SHAPES, Thing

#: The answers to each kind of question.
ANSWERS: dict[str, tuple[str, ...]] = {
    "existence": ("yes", "no"),
    "colour": tuple(COLOURS),
    "identity": (*map(str, range(len(DIGITS))), *SHAPES),
    "count": tuple(map(str, range(MAX_THINGS + 1))),
    "position": tuple(name for row in PLACES for name in row),
}


@dataclass(frozen=True)
class Question:
    """A question and its answer, what kind it is and what it is about."""

    kind: str
    text: str
    answer: str
    phrase: Phrase


def answers() -> list[str]:
    """All answers there are, sorted: the list to rank."""
    return sorted({answer for of_kind in ANSWERS.values() for answer in of_kind})


def wording(kind: str, phrase: Phrase) -> str:
    """The words that ask for the existence, colour, identity, count or position of what a phrase names."""
    name = phrase.text()
    return {
        "existence": f"is there {'an' if name == 'eight' else 'a'} {name}",
        "colour": f"what colour is the {name}",
        "identity": f"what is the {name}",
        "count": f"how many {phrase.text(plural=True)} are there",
        "position": f"where is the {name}",
    }[kind]


def answer(kind: str, phrase: Phrase, scene: Scene) -> str | None:
    """What a scene answers; None if "the" would not fit, or people could differ."""
    meant = [thing for thing in scene.things if phrase.matches(thing)]
    if kind == "existence":
        return "yes" if meant else "no"
    if kind == "count":
        return str(len(meant))
    if len(meant) != 1 or (kind == "position" and not is_clear(meant[0])):
        return None
    return {"colour": meant[0].colour, "identity": _name(meant[0]), "position": place(meant[0])}[kind]


def _name(thing: Thing) -> str:
    return str(DIGITS.index(thing.noun)) if thing.is_digit else thing.noun


def phrases(kind: str) -> list[Phrase]:
    """What questions of a kind can be about; the words tell nothing of the answer."""
    nouns, colours = (*DIGITS, *SHAPES), tuple(COLOURS)
    coloured = [Phrase(None, colour) for colour in colours]
    if kind == "identity":
        return coloured
    if kind == "count":
        # Not of things as such: there are never none.
        return [Phrase("digit"), Phrase("shape"), *coloured]
    named = [Phrase(noun) for noun in nouns]
    if kind == "colour":
        return named
    return [*named, *coloured, *(Phrase(noun, colour) for noun in nouns for colour in colours)]


def questions(scene: Scene) -> list[Question]:
    """Every question that a scene answers, by kind; most answers to existence are "no"."""
    asked = [(kind, phrase, answer(kind, phrase, scene)) for kind in ANSWERS for phrase in phrases(kind)]
    return [Question(kind, wording(kind, phrase), said, phrase) for kind, phrase, said in asked if said is not None]


def draw(rng: random.Random) -> Question:
    """Draw a kind, one of its answers, and what the question is about; the scene comes after them."""
    kind = pick(rng, tuple(ANSWERS))
    wanted, phrase = pick(rng, ANSWERS[kind]), pick(rng, phrases(kind))
    return Question(kind, wording(kind, phrase), wanted, phrase)


def sayings() -> Iterator[str]:
    """Every question, and every answer."""
    yield from (wording(kind, phrase) for kind in ANSWERS for phrase in phrases(kind))
    yield from answers()
