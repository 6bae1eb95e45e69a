"""Scenes: things put beside each other on a picture, drawn from `random.random()` alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from madtp_cli.scenes.painting import COLOURS, DIGITS, IMAGE_SIZE, SHAPES, Thing, handwriting, paint

SPLITS = ("train", "val", "test")
COUNTS = ("no", "one", "two", "three", "four")
MAX_THINGS = 4
#: Side of a thing in pixels: three to four and a half patches of 8 pixels, because
#: shapes smaller than two patches are hardly learned at all.
SIZES = range(24, 37)
#: A thing whose centre is nearer than this to a border between thirds of the picture has no clear place.
CLEAR = 3
#: Names of the picture's ninths, by row and column. They stand as answers, so without articles, as VQA compares them.
PLACES = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))


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

    def render(self) -> np.ndarray:
        """Paint the scene, uint8 [96, 96, 3]."""
        return paint(self.things, self.seed)


def ninth(thing: Thing) -> tuple[int, int]:
    """Row and column, 0 to 2, of the ninth of the picture that a thing's centre lies in."""
    row, column = (int((start + thing.size / 2) * 3 / IMAGE_SIZE) for start in (thing.top, thing.left))
    return row, column


def place(thing: Thing) -> str:
    """The name of that ninth."""
    row, column = ninth(thing)
    return PLACES[row][column]


def is_clear(thing: Thing) -> bool:
    """Whether people would agree on its place."""
    borders = (IMAGE_SIZE / 3, IMAGE_SIZE * 2 / 3)
    return all(abs(start + thing.size / 2 - at) >= CLEAR for start in (thing.top, thing.left) for at in borders)


def pick(rng: random.Random, options: Sequence[Any]) -> Any:
    """One of the options."""
    return options[int(rng.random() * len(options))]


def plural(noun: str, number: int) -> str:
    """A noun as it stands behind a number."""
    return noun if number == 1 else noun + "s"


def draw_scene(split: str, rng: random.Random, hint: Phrase | None = None) -> Scene:
    """Draw a scene; with a `hint` some things resemble it, so that statements are not trivial."""
    things: list[Thing] = []
    for _ in range(1 + int(rng.random() * MAX_THINGS)):
        noun = pick(rng, DIGITS if rng.random() < 0.5 else SHAPES)
        colour = pick(rng, tuple(COLOURS))
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
        size = pick(rng, SIZES)
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
    return replace(thing, sample=pick(rng, handwriting(split)[DIGITS.index(thing.noun)]))


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
