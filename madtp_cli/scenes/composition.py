"""Scenes: pictures of things that do not overlap, and how they are generated.

All random numbers come from `random.random()`, whose sequence for a seed is the same in every Python version.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from madtp_cli.scenes.painting import COLOURS, DIGITS, IMAGE_SIZE, SHAPES, Thing, digit_samples, paint

COUNTS = ("no", "one", "two", "three", "four")
MAX_THINGS = 4
#: Side of a thing in pixels: three to four and a half patches of 8 pixels. Models hardly learn shapes that are smaller
#: than two patches.
SIZES = range(24, 37)
#: A thing has a clear place if its centre is at least this many pixels from the borders between thirds of the picture.
CLEAR_DISTANCE = 3
#: Names of the nine cells of the picture, by row and column. They are answers, so they have no articles, as VQA's
#: comparison of answers requires.
PLACES = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))


@dataclass(frozen=True)
class Phrase:
    """A noun phrase, which a statement or a question is about. None matches every noun or colour."""

    noun: str | None = None
    colour: str | None = None

    def matches(self, thing: Thing) -> bool:
        """Return whether the phrase describes a thing."""
        nouns: tuple[str | None, ...] = (None, thing.noun, "digit" if thing.is_digit else "shape")
        return self.noun in nouns and self.colour in (None, thing.colour)

    def text(self, *, plural: bool = False) -> str:
        """Return the phrase as text, without an article."""
        noun = (self.noun or "thing") + ("s" if plural else "")
        return f"{self.colour} {noun}" if self.colour else noun


@dataclass(frozen=True)
class Scene:
    """The description of a picture, which is also an image source for the rows of a data set.

    Args:
        things: The things on the picture.
        split: The split whose handwriting its digits have.
        seed: Fixes the background, the clutter and the shades of the colours.
    """

    things: tuple[Thing, ...]
    split: str
    seed: int
    opens_fast: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"built-in {self.split} scene with seed {self.seed}"

    def count(self, phrase: Phrase) -> int:
        """Return the number of things that match a phrase."""
        return sum(phrase.matches(thing) for thing in self.things)

    def render(self) -> np.ndarray:
        """Return the pixels of the scene, uint8 [96, 96, 3]."""
        return paint(self.things, self.seed)

    def open(self) -> Image.Image:
        """Return the picture of the scene."""
        return Image.fromarray(self.render())


def grid_cell(thing: Thing) -> tuple[int, int]:
    """Return the row and the column, 0 to 2, of the centre of a thing in a grid of 3 x 3 cells."""
    row, column = (int((start + thing.size / 2) * 3 / IMAGE_SIZE) for start in (thing.top, thing.left))
    return row, column


def place_name(thing: Thing) -> str:
    """Return the name of the grid cell of a thing."""
    row, column = grid_cell(thing)
    return PLACES[row][column]


def has_clear_place(thing: Thing) -> bool:
    """Return whether a thing is far enough from the borders of its grid cell for people to agree on its place."""
    borders = (IMAGE_SIZE / 3, IMAGE_SIZE * 2 / 3)
    return all(
        abs(start + thing.size / 2 - border) >= CLEAR_DISTANCE
        for start in (thing.top, thing.left)
        for border in borders
    )


def pick(rng: random.Random, options: Sequence[Any]) -> Any:
    """Return one of the options at random."""
    return options[int(rng.random() * len(options))]


def plural(noun: str, number: int) -> str:
    """Return a noun in the form that follows a number."""
    return noun if number == 1 else noun + "s"


def draw_scene(split: str, rng: random.Random, hint: Phrase | None = None) -> Scene:
    """Return a random scene; with a `hint`, some things resemble it, so that statements about it are not trivial."""
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
    return Scene(tuple(_with_sample(thing, split, rng) for thing in things), split, int(rng.random() * 2**53))


def _place(things: list[Thing], noun: str, colour: str, rng: random.Random) -> list[Thing]:
    """Add a thing at a random place where it overlaps no other thing; a full scene stays unchanged."""
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


def _with_sample(thing: Thing, split: str, rng: random.Random) -> Thing:
    """Give a digit one of the handwriting samples of the split."""
    if not thing.is_digit:
        return thing
    return replace(thing, sample=pick(rng, digit_samples(split)[DIGITS.index(thing.noun)]))


def vary_handwriting(scene: Scene, rng: random.Random) -> Scene:
    """Return the scene with its digits slightly rotated, slanted and stretched.

    This is for training: 126 samples of a digit are few, and a model must also recognise other handwriting.
    """
    return replace(scene, things=tuple(replace(thing, warp=_random_warp(rng)) for thing in scene.things))


def _random_warp(rng: random.Random) -> tuple[float, float, float, float]:
    turn, slant = math.radians(24 * rng.random() - 12), 0.5 * rng.random() - 0.25
    wide, high = (0.9 + 0.3 * rng.random() for _ in range(2))
    cos, sin = math.cos(turn), math.sin(turn)
    return wide * cos + slant * sin, slant * cos - wide * sin, high * sin, high * cos
