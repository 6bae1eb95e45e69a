"""Statements about two scenes, each with the test that tells whether it is true, for NLVR2."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from madtp_cli.scenes.composition import COUNTS, Phrase, Scene, pick, plural
from madtp_cli.scenes.painting import COLOURS, DIGITS, SHAPES, Thing

#: Kinds of statements, by what must be recognised: a colour, a shape, a digit, the colour of a shape or digit
#: ("bound"), the number of things in one image, or the numbers in both images.
KINDS = ("colour", "shape", "digit", "bound", "count", "compare")
GROUPS = ("digit", "shape", None)
WHERE = ("left", "right", "both", "either")
RELATIONS = ("left", "right", "same")


@dataclass(frozen=True)
class Statement:
    """A statement about a pair of scenes.

    Args:
        kind: One of `KINDS`.
        text: The statement.
        holds: Whether it is true for a left and a right scene.
        phrase: The phrase it is about.
    """

    kind: str
    text: str
    holds: Callable[[Scene, Scene], bool]
    phrase: Phrase


def _exists(kind: str, phrase: Phrase, where: str) -> Statement:
    """A statement that the left, the right, both or at least one of the images contain such a thing."""
    name = ("an " if phrase.text()[0] in "aeio" else "a ") + phrase.text()
    statements = {
        "left": (f"there is {name} in the left image", lambda a, b: a.count(phrase) > 0),
        "right": (f"there is {name} in the right image", lambda a, b: b.count(phrase) > 0),
        "both": (f"both images contain {name}", lambda a, b: a.count(phrase) > 0 and b.count(phrase) > 0),
        "either": (f"at least one image contains {name}", lambda a, b: a.count(phrase) + b.count(phrase) > 0),
    }
    text, holds = statements[where]
    return Statement(kind, text, holds, phrase)


def _counted(phrase: Phrase, number: int, side: int) -> Statement:
    where = ("left", "right")[side]
    text = f"the {where} image contains exactly {COUNTS[number]} {plural(phrase.text(), number)}"
    return Statement("count", text, lambda a, b: (a, b)[side].count(phrase) == number, phrase)


def _compared(phrase: Phrase, relation: str) -> Statement:
    several = phrase.text(plural=True)
    statements = {
        "left": (f"there are more {several} in the left image", lambda a, b: a.count(phrase) > b.count(phrase)),
        "right": (f"there are more {several} in the right image", lambda a, b: b.count(phrase) > a.count(phrase)),
        "same": (f"both images contain the same number of {several}", lambda a, b: a.count(phrase) == b.count(phrase)),
    }
    text, holds = statements[relation]
    return Statement("compare", text, holds, phrase)


def draw(kind: str, rng: random.Random, thing: Thing | None = None) -> Statement:
    """Return a random statement of one kind; with `thing`, it is about the noun and the colour of this thing."""
    colour = thing.colour if thing else pick(rng, tuple(COLOURS))
    if thing:
        noun = thing.noun
    else:
        wants_digit = kind == "digit" or (kind == "bound" and rng.random() < 0.5)
        noun = pick(rng, DIGITS if wants_digit else SHAPES)
    group = pick(rng, GROUPS)
    where = pick(rng, WHERE)
    if kind == "count":
        return _counted(Phrase(group), 1 + int(rng.random() * 3), int(rng.random() * 2))
    if kind == "compare":
        return _compared(Phrase(group), pick(rng, RELATIONS))
    phrase = Phrase(noun if kind != "colour" else None, colour if kind in ("colour", "bound") else None)
    return _exists(kind, phrase, where)


def example_texts() -> Iterator[str]:
    """Yield statements that together contain every word a statement can contain."""
    for phrase in [Phrase(noun, colour) for noun in (*DIGITS, *SHAPES) for colour in (None, *COLOURS)]:
        yield from (_exists("bound", phrase, where).text for where in WHERE)
    for group in GROUPS:
        yield from (_counted(Phrase(group), number, side).text for number in (1, 2, 3) for side in (0, 1))
        yield from (_compared(Phrase(group), relation).text for relation in RELATIONS)
