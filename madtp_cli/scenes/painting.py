"""How things are painted: real handwriting, six shapes, colours, textured backgrounds.

Everything is drawn from `random.random()` alone, whose stream Python guarantees, so a
seed paints the same picture everywhere.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

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
#: Share of the 1,797 handwritten digits that compose each split.
DIGIT_SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.85), "test": (0.85, 1.0)}
_TEXTURE_SIDE = 160


@dataclass(frozen=True)
class Thing:
    """One object: `noun` is a shape or a digit's name; `left`, `top`, `size` are pixels.

    `warp` is a linear map (xx, xy, yx, yy) from the painted digit to the handwriting, about its
    centre: for training on more hands than wrote the samples.
    """

    noun: str
    colour: str
    left: int
    top: int
    size: int
    sample: int = 0
    warp: tuple[float, float, float, float] | None = None

    @property
    def is_digit(self) -> bool:
        """Whether it is handwriting rather than a shape."""
        return self.noun in DIGITS


def paint(things: Sequence[Thing], seed: int) -> np.ndarray:
    """Paint things on a background, uint8 [96, 96, 3]; `seed` fixes texture, clutter and shades."""
    rng = random.Random(seed)
    canvas = _background(rng)
    _clutter(canvas, rng)
    for thing in things:
        cover = mask(thing)[..., None]
        shade = np.array([c * (0.85 + 0.15 * rng.random()) for c in COLOURS[thing.colour]], np.float32)
        area = canvas[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size]
        area += cover * (shade - area)
    return canvas.clip(0, 255).astype(np.uint8)


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits as stored: grey [1797, 8, 8] of 0-16 and their labels."""
    stored = np.load(Path(__file__).with_name("digits.npz"))
    return stored["images"], stored["labels"]


@functools.cache
def handwriting(split: str) -> tuple[tuple[int, ...], ...]:
    """Indices of a split's handwriting, by digit."""
    low, high = DIGIT_SHARES[split]
    labels = _digits()[1]
    by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
    return tuple(tuple(int(i) for i in ids[int(low * len(ids)) : int(high * len(ids))]) for ids in by_digit)


def mask(thing: Thing) -> np.ndarray:
    """How much of each pixel of its square a thing covers, float32 [size, size] in 0-1."""
    if thing.warp and thing.is_digit:
        return _sharp(_warped(_enlarged(thing.size, thing.sample), thing.warp))
    return _mask(thing.noun, thing.size, thing.sample)


@functools.lru_cache(maxsize=50_000)
def _mask(noun: str, size: int, sample: int) -> np.ndarray:
    if noun in DIGITS:
        return _sharp(_enlarged(size, sample))
    fine = 4 * size
    y, x = (np.mgrid[:fine, :fine] + 0.5) / fine * 2 - 1
    inside = _inside(noun, x, y).astype(np.float32)
    return inside.reshape(size, 4, size, 4).mean((1, 3))


def _enlarged(size: int, sample: int) -> Image.Image:
    grey = Image.fromarray((_digits()[0][sample] * 15.9).astype(np.uint8))
    return grey.resize((size, size), Image.Resampling.BICUBIC)


def _warped(image: Image.Image, warp: tuple[float, float, float, float]) -> Image.Image:
    (xx, xy, yx, yy), middle = warp, (image.width - 1) / 2
    about = (xx, xy, middle * (1 - xx - xy), yx, yy, middle * (1 - yx - yy))
    return image.transform(image.size, Image.Transform.AFFINE, about, Image.Resampling.BILINEAR)


def _sharp(image: Image.Image) -> np.ndarray:
    """At several times its size a blurred stroke looks like no pen's."""
    return (np.asarray(image, np.float32) / 255 * 2.4 - 0.6).clip(0, 1)


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
