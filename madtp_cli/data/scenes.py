"""The built-in data set: composed pictures of handwritten digits and coloured shapes.

A scene is a list of things (what, which colour, where), so it knows its captions, its
questions with answers, and whether a statement about a pair of scenes is true. The
handwriting is real (see NOTICE) and split by original sample before composing: no
train digit appears in a val or test picture. Everything is drawn from `random.random()`
alone, whose stream Python guarantees, so a seed gives the same data everywhere.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

SPLITS = ("train", "val", "test")
IMAGE_SIZE = 96
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS = {
    "red": (215, 45, 40),
    "green": (45, 175, 60),
    "blue": (55, 95, 230),
    "yellow": (240, 215, 50),
    "purple": (165, 60, 200),
    "white": (245, 245, 245),
}
COUNTS = ("no", "one", "two", "three", "four")
MAX_THINGS = 4
#: Side of a thing in pixels: three to four and a half patches of 8 pixels, because
#: shapes smaller than two patches are hardly learned at all.
SIZES = range(24, 37)
#: Share of the 1,797 handwritten digits that compose each split.
DIGIT_SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.85), "test": (0.85, 1.0)}
_TEXTURE_SIDE = 160


@dataclass(frozen=True)
class Thing:
    """One object: `noun` is a shape or a digit's name; `left`, `top`, `size` are pixels."""

    noun: str
    colour: str
    left: int
    top: int
    size: int
    sample: int = 0

    @property
    def is_digit(self) -> bool:
        return self.noun in DIGITS


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: what a statement or a question is about. None matches anything."""

    noun: str | None = None
    colour: str | None = None

    def matches(self, thing: Thing) -> bool:
        nouns: tuple[str | None, ...] = (None, thing.noun, "digit" if thing.is_digit else "shape")
        return self.noun in nouns and self.colour in (None, thing.colour)

    def text(self, *, plural: bool = False) -> str:
        noun = (self.noun or "thing") + ("s" if plural else "")
        return f"{self.colour} {noun}" if self.colour else noun


@dataclass(frozen=True)
class Scene:
    """A picture's description; `seed` fixes its background, clutter and colour shades."""

    things: tuple[Thing, ...]
    split: str
    seed: int

    def count(self, phrase: Phrase) -> int:
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
        rng = random.Random(self.seed)
        canvas = _background(rng)
        _clutter(canvas, rng)
        for thing in self.things:
            cover = mask(thing)[..., None]
            shade = np.array([c * (0.85 + 0.15 * rng.random()) for c in COLOURS[thing.colour]], np.float32)
            area = canvas[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size]
            area += cover * (shade - area)
        return canvas.clip(0, 255).astype(np.uint8)


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


def _pick(rng: random.Random, options: Sequence):
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
    noun = thing.noun if thing else _pick(rng, DIGITS if kind == "digit" or kind == "bound" and rng.random() < 0.5 else SHAPES)
    group = _pick(rng, ("digit", "shape", None))
    where = _pick(rng, ("left", "right", "both", "either"))
    if kind == "count":
        return _counted(Phrase(group), 1 + int(rng.random() * 3), int(rng.random() * 2))
    if kind == "compare":
        return _compared(Phrase(group), _pick(rng, ("left", "right", "same")))
    phrases = {"colour": Phrase(None, colour), "shape": Phrase(noun), "digit": Phrase(noun), "bound": Phrase(noun, colour)}
    return _exists(kind, phrases[kind], where)


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
    return replace(thing, sample=_pick(rng, _samples(split)[DIGITS.index(thing.noun)]))


def draw_pair(split: str, rng: random.Random) -> Pair:
    """Draw a statement, then its truth, then scenes that make it so.

    The truth is a fair coin that knows nothing of the sentence, so no kind of
    statement can be solved from the text alone.
    """
    statement = _statement(_pick(rng, KINDS), rng)
    label = rng.random() < 0.5
    while True:
        left, right = (draw_scene(split, rng, statement.phrase) for _ in range(2))
        if statement.holds(left, right) == label:
            return Pair(left, right, statement, label)


def draw_statements(left: Scene, right: Scene, number: int, rng: random.Random) -> list[tuple[Statement, bool]]:
    """Draw more statements about one pair, as many true as false where it can be had.

    Their words and their truth are slightly dependent: fit for teaching, not for testing.
    """
    drawn = []
    while len(drawn) < number:
        label = rng.random() < 0.5
        for _ in range(8):
            kind = _pick(rng, KINDS)
            near = [t for t in left.things + right.things if kind not in ("shape", "digit") or t.is_digit == (kind == "digit")]
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


# ---------------------------------------------------------------- painting


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits as stored: grey [1797, 8, 8] of 0-16 and their labels."""
    stored = np.load(Path(__file__).with_name("digits.npz"))
    return stored["images"], stored["labels"]


@functools.cache
def _samples(split: str) -> tuple[tuple[int, ...], ...]:
    """Indices of a split's handwriting, by digit."""
    low, high = DIGIT_SHARES[split]
    labels = _digits()[1]
    by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
    return tuple(tuple(int(i) for i in ids[int(low * len(ids)) : int(high * len(ids))]) for ids in by_digit)


def mask(thing: Thing) -> np.ndarray:
    """How much of each pixel of its square a thing covers, float32 [size, size] in 0-1."""
    return _mask(thing.noun, thing.size, thing.sample)


@functools.lru_cache(maxsize=50_000)
def _mask(noun: str, size: int, sample: int) -> np.ndarray:
    if noun in DIGITS:
        grey = Image.fromarray((_digits()[0][sample] * 15.9).astype(np.uint8))
        smooth = np.asarray(grey.resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
        # Sharpened: at eight times its size a blurred stroke looks like no pen's.
        return (smooth * 2.4 - 0.6).clip(0, 1)
    fine = 4 * size
    y, x = (np.mgrid[:fine, :fine] + 0.5) / fine * 2 - 1
    inside = _inside(noun, x, y).astype(np.float32)
    return inside.reshape(size, 4, size, 4).mean((1, 3))


def _inside(noun: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of the square [-1, 1]² belong to a shape."""
    radius = np.hypot(x, y)
    if noun == "circle":
        return radius < 0.92
    if noun == "ring":
        return (radius < 0.95) & (radius > 0.55)
    if noun == "square":
        return np.maximum(abs(x), abs(y)) < 0.8
    if noun == "cross":
        return (np.minimum(abs(x), abs(y)) < 0.28) & (np.maximum(abs(x), abs(y)) < 0.92)
    if noun == "triangle":
        return (y < 0.8) & (abs(x) < (y + 0.92) * 0.55)
    turn = (np.arctan2(x, -y) / (2 * math.pi) * 5) % 1  # star: five points
    return radius < 0.95 - 0.6 * (1 - abs(2 * turn - 1))


@functools.cache
def _textures() -> np.ndarray:
    """A pool of grey backgrounds, float32 [24, 160, 160] around 0: noise, stripes, checks."""
    random_state = np.random.RandomState(20)  # the one numpy stream that is frozen for good
    y, x = np.mgrid[:_TEXTURE_SIDE, :_TEXTURE_SIDE]
    pool = []
    for number in range(24):
        grain = random_state.standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE)) * 0.35
        coarse = Image.fromarray(random_state.standard_normal((12, 12)).astype(np.float32))
        clouds = np.asarray(coarse.resize((_TEXTURE_SIDE, _TEXTURE_SIDE), Image.Resampling.BICUBIC))
        angle, period = random_state.uniform(0, math.pi), random_state.uniform(5, 14)
        stripes = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period)
        checks = np.sign(np.sin(x * 2 * math.pi / period) * np.sin(y * 2 * math.pi / period))
        pool.append(grain + (clouds, stripes, checks)[number % 3])
    return np.stack(pool).astype(np.float32)


def _background(rng: random.Random) -> np.ndarray:
    """A dark, slightly tinted texture, float32 [96, 96, 3]."""
    top, left = (int(rng.random() * (_TEXTURE_SIDE - IMAGE_SIZE)) for _ in range(2))
    texture = _textures()[int(rng.random() * 24), top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
    tint = np.array([45 + 50 * rng.random() for _ in range(3)], np.float32)
    return texture[..., None] * (5 + 12 * rng.random()) + tint


def _clutter(canvas: np.ndarray, rng: random.Random) -> None:
    """Paint up to six small grey marks that no sentence speaks of."""
    for _ in range(int(rng.random() * 7)):
        high, wide = 1 + int(rng.random() * 5), 1 + int(rng.random() * 5)
        top, left = int(rng.random() * (IMAGE_SIZE - high)), int(rng.random() * (IMAGE_SIZE - wide))
        canvas[top : top + high, left : left + wide] = 60 + 120 * rng.random()
