"""The built-in data set: composed pictures of handwritten digits and coloured shapes.

A scene is a list of things (what, which colour, where), so it knows its captions, its
questions with answers, and whether a statement about a pair of scenes is true. The
handwriting is real (see NOTICE) and split by original sample before composing: no
train digit appears in a val or test picture. Everything is drawn from `random.random()`
alone, whose stream Python guarantees, so a seed gives the same data everywhere.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# The `as` names are part of this module for whoever composes scenes: a scene is made of them.
from madtp_cli.data.painting import COLOURS as COLOURS
from madtp_cli.data.painting import DIGITS as DIGITS
from madtp_cli.data.painting import IMAGE_SIZE as IMAGE_SIZE
from madtp_cli.data.painting import SHAPES as SHAPES
from madtp_cli.data.painting import Thing as Thing
from madtp_cli.data.painting import handwriting, paint
from madtp_cli.data.painting import mask as mask

SPLITS = ("train", "val", "test")
COUNTS = ("no", "one", "two", "three", "four")
MAX_THINGS = 4
#: Side of a thing in pixels: three to four and a half patches of 8 pixels, because
#: shapes smaller than two patches are hardly learned at all.
SIZES = range(24, 37)


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: what a statement or a question is about. None matches anything."""

    noun: str | None = None
    colour: str | None = None

    def matches(self, thing: Thing) -> bool:
        """Whether a thing is what the phrase speaks of."""
        nouns: tuple[str | None, ...] = (None, thing.noun, "digit" if thing.is_digit else "shape")
        return self.noun in nouns and self.colour in (None, thing.colour)

    def text(self, *, plural: bool = False) -> str:
        """The phrase in words, without an article."""
        noun = (self.noun or "thing") + ("s" if plural else "")
        return f"{self.colour} {noun}" if self.colour else noun


@dataclass(frozen=True)
class Scene:
    """A picture's description; `seed` fixes its background, clutter and colour shades."""

    things: tuple[Thing, ...]
    split: str
    seed: int

    def count(self, phrase: Phrase) -> int:
        """How many things the phrase matches."""
        return sum(phrase.matches(thing) for thing in self.things)

    def captions(self) -> list[str]:
        """Five captions, from complete to terse, naming things from left to right."""
        things = sorted(self.things, key=lambda thing: thing.left)
        named = [f"a {thing.colour} {thing.noun}" for thing in things]
        digits, shapes = self.count(Phrase("digit")), self.count(Phrase("shape"))
        return [
            " and ".join(named),
            "a picture with " + " and ".join(reversed(named)),
            f"{named[0]} on the left" if len(named) > 1 else f"only {named[0]}",
            f"{COUNTS[digits]} {_noun('digit', digits)} and {COUNTS[shapes]} {_noun('shape', shapes)}",
            " and ".join(sorted({thing.colour for thing in things})) + " things",
        ]

    def questions(self) -> list[tuple[str, str]]:
        """Questions with their answers: existence, colour, identity and count."""
        pairs = [(f"how many {noun}s are there", str(self.count(Phrase(noun)))) for noun in ("digit", "shape")]
        for thing in self.things:
            if self.count(Phrase(thing.noun)) == 1:
                pairs.append((f"what colour is the {thing.noun}", thing.colour))
            if self.count(Phrase(None, thing.colour)) == 1:
                pairs.append((f"what is the {thing.colour} thing", thing.noun))
            pairs.append((f"is there a {thing.colour} {thing.noun}", "yes"))
            other = next(colour for colour in COLOURS if not self.count(Phrase(thing.noun, colour)))
            pairs.append((f"is there a {other} {thing.noun}", "no"))
        return pairs

    def render(self) -> np.ndarray:
        """Paint the scene, uint8 [96, 96, 3]."""
        return paint(self.things, self.seed)


@dataclass(frozen=True)
class Statement:
    """A sentence about a pair of scenes, the test that decides it, and what it is about."""

    kind: str
    text: str
    holds: Callable[[Scene, Scene], bool]
    phrase: Phrase


@dataclass(frozen=True)
class Pair:
    """One NLVR2-like item: two scenes and a statement that is true of them or not."""

    left: Scene
    right: Scene
    statement: Statement
    label: bool


def _pick(rng: random.Random, options: Sequence[Any]) -> Any:
    return options[int(rng.random() * len(options))]


def _noun(noun: str, count: int) -> str:
    return noun if count == 1 else noun + "s"


# ---------------------------------------------------------------- statements about a pair


def _exists(kind: str, phrase: Phrase, where: str) -> Statement:
    """There is such a thing in the left, the right, both or at least one of the images."""
    name = ("an " if phrase.text()[0] in "aeio" else "a ") + phrase.text()
    frames = {
        "left": (f"there is {name} in the left image", lambda a, b: a.count(phrase) > 0),
        "right": (f"there is {name} in the right image", lambda a, b: b.count(phrase) > 0),
        "both": (f"both images contain {name}", lambda a, b: a.count(phrase) > 0 and b.count(phrase) > 0),
        "either": (f"at least one image contains {name}", lambda a, b: a.count(phrase) + b.count(phrase) > 0),
    }
    text, holds = frames[where]
    return Statement(kind, text, holds, phrase)


def _counted(phrase: Phrase, number: int, side: int) -> Statement:
    where = ("left", "right")[side]
    text = f"the {where} image contains exactly {COUNTS[number]} {_noun(phrase.text(), number)}"
    return Statement("count", text, lambda a, b: (a, b)[side].count(phrase) == number, phrase)


def _compared(phrase: Phrase, relation: str) -> Statement:
    plural = phrase.text(plural=True)
    frames = {
        "left": (f"there are more {plural} in the left image", lambda a, b: a.count(phrase) > b.count(phrase)),
        "right": (f"there are more {plural} in the right image", lambda a, b: b.count(phrase) > a.count(phrase)),
        "same": (f"both images contain the same number of {plural}", lambda a, b: a.count(phrase) == b.count(phrase)),
    }
    text, holds = frames[relation]
    return Statement("compare", text, holds, phrase)


def _statement(kind: str, rng: random.Random, thing: Thing | None = None) -> Statement:
    """Draw a statement of one kind; with `thing` it is about that thing's noun and colour."""
    colour = thing.colour if thing else _pick(rng, tuple(COLOURS))
    if thing:
        noun = thing.noun
    else:
        wants_digit = kind == "digit" or (kind == "bound" and rng.random() < 0.5)
        noun = _pick(rng, DIGITS if wants_digit else SHAPES)
    group = _pick(rng, ("digit", "shape", None))
    where = _pick(rng, ("left", "right", "both", "either"))
    if kind == "count":
        return _counted(Phrase(group), 1 + int(rng.random() * 3), int(rng.random() * 2))
    if kind == "compare":
        return _compared(Phrase(group), _pick(rng, ("left", "right", "same")))
    phrase = Phrase(noun if kind != "colour" else None, colour if kind in ("colour", "bound") else None)
    return _exists(kind, phrase, where)


#: What has to be seen to judge a statement: a colour, a shape, a digit, a colour bound to
#: its shape or digit, a number of things, or the numbers in both images.
KINDS = ("colour", "shape", "digit", "bound", "count", "compare")


# ---------------------------------------------------------------- drawing scenes and pairs


def draw_scene(split: str, rng: random.Random, hint: Phrase | None = None) -> Scene:
    """Draw a scene; with a `hint` some things resemble it, so that statements are not trivial."""
    things: list[Thing] = []
    for _ in range(1 + int(rng.random() * MAX_THINGS)):
        noun = _pick(rng, DIGITS if rng.random() < 0.5 else SHAPES)
        colour = _pick(rng, tuple(COLOURS))
        if hint and rng.random() < 0.5:
            if hint.noun in DIGITS + SHAPES and rng.random() < 0.75:
                noun = str(hint.noun)
            if hint.colour and rng.random() < 0.75:
                colour = hint.colour
        things = _place(things, noun, colour, rng)
    return Scene(tuple(_sampled(thing, split, rng) for thing in things), split, int(rng.random() * 2**53))


def _place(things: list[Thing], noun: str, colour: str, rng: random.Random) -> list[Thing]:
    """Add a thing where it overlaps none; a crowded scene stays as it is."""
    for _ in range(20):
        size = _pick(rng, SIZES)
        left, top = (int(rng.random() * (IMAGE_SIZE - size + 1)) for _ in range(2))
        if all(
            left >= other.left + other.size
            or other.left >= left + size
            or top >= other.top + other.size
            or other.top >= top + size
            for other in things
        ):
            return [*things, Thing(noun, colour, left, top, size)]
    return things


def _sampled(thing: Thing, split: str, rng: random.Random) -> Thing:
    """Choose whose handwriting a digit is, from the split's own samples."""
    if not thing.is_digit:
        return thing
    return replace(thing, sample=_pick(rng, handwriting(split)[DIGITS.index(thing.noun)]))


def rewritten(scene: Scene, rng: random.Random) -> Scene:
    """The scene with its digits in other hands than the samples': a small turn, slant and stretch.

    For training: 126 samples of a digit are few, and what is learned of them should hold for others'.
    """
    return replace(scene, things=tuple(replace(thing, warp=_another_hand(rng)) for thing in scene.things))


def _another_hand(rng: random.Random) -> tuple[float, float, float, float]:
    turn, slant = math.radians(24 * rng.random() - 12), 0.5 * rng.random() - 0.25
    wide, high = (0.9 + 0.3 * rng.random() for _ in range(2))
    cos, sin = math.cos(turn), math.sin(turn)
    return wide * cos + slant * sin, slant * cos - wide * sin, high * sin, high * cos


def draw_pair(split: str, rng: random.Random) -> Pair:
    """Draw a statement, then its truth, then scenes that make it so.

    The truth is a fair coin that knows nothing of the sentence, so no kind of
    statement can be solved from the text alone. Train digits are `rewritten`.
    """
    statement = _statement(_pick(rng, KINDS), rng)
    label = rng.random() < 0.5
    while True:
        left, right = (draw_scene(split, rng, statement.phrase) for _ in range(2))
        if statement.holds(left, right) == label:
            if split == "train":
                left, right = rewritten(left, rng), rewritten(right, rng)
            return Pair(left, right, statement, label)


def draw_statements(left: Scene, right: Scene, number: int, rng: random.Random) -> list[tuple[Statement, bool]]:
    """Draw more statements about one pair, as many true as false where it can be had.

    Their words and their truth are slightly dependent: fit for teaching, not for testing.
    """
    drawn: list[tuple[Statement, bool]] = []
    while len(drawn) < number:
        label = rng.random() < 0.5
        for _ in range(8):
            kind = _pick(rng, KINDS)
            seen = left.things + right.things
            near = [t for t in seen if kind not in ("shape", "digit") or t.is_digit == (kind == "digit")]
            thing = _pick(rng, near) if near and rng.random() < 0.8 else None
            if thing and kind == "bound" and rng.random() < 0.5:
                thing = replace(thing, colour=_pick(rng, tuple(COLOURS)))
            statement = _statement(kind, rng, thing)
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
