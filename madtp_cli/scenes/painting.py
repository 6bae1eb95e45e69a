"""Paints things: handwritten digits, six shapes, colours, and backgrounds with textures.

All random numbers come from `random.random()`, whose sequence for a seed is the same in every Python version, so a seed
gives the same picture everywhere.
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
#: The range of the 1,797 handwritten digits that each split uses, as shares of the samples of each digit.
DIGIT_SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.85), "test": (0.85, 1.0)}
_TEXTURE_SIDE = 160


@dataclass(frozen=True)
class Thing:
    """One thing on a picture.

    Args:
        noun: A shape or the name of a digit.
        colour: One of `COLOURS`.
        left, top, size: Position of the upper left corner and side of its square, in pixels.
        sample: Index of the handwriting of a digit.
        warp: Linear map (xx, xy, yx, yy) about the centre, from the painted digit to the handwriting. It varies the
            handwriting for training.
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
        """Whether it is a handwritten digit and not a shape."""
        return self.noun in DIGITS


def paint(things: Sequence[Thing], seed: int) -> np.ndarray:
    """Return a picture of things on a background, uint8 [96, 96, 3].

    Args:
        things: The things.
        seed: Fixes the texture of the background, the clutter, and the shades of the colours.
    """
    rng = random.Random(seed)
    canvas = _background(rng)
    _add_clutter(canvas, rng)
    for thing in things:
        coverage = mask(thing)[..., None]
        shade = np.array([c * (0.85 + 0.15 * rng.random()) for c in COLOURS[thing.colour]], np.float32)
        area = canvas[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size]
        area += coverage * (shade - area)
    return canvas.clip(0, 255).astype(np.uint8)


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """The handwritten digits: grey levels 0 to 16, [1797, 8, 8], and their labels [1797]."""
    stored = np.load(Path(__file__).with_name("digits.npz"))
    return stored["images"], stored["labels"]


@functools.cache
def digit_samples(split: str) -> tuple[tuple[int, ...], ...]:
    """Return the indices of the handwriting samples of a split, one tuple for each digit."""
    low, high = DIGIT_SHARES[split]
    labels = _digits()[1]
    by_digit = [np.flatnonzero(labels == digit) for digit in range(10)]
    return tuple(tuple(int(i) for i in ids[int(low * len(ids)) : int(high * len(ids))]) for ids in by_digit)


def mask(thing: Thing) -> np.ndarray:
    """Return the share, 0 to 1, of each pixel of its square that a thing covers, float32 [size, size]."""
    if thing.warp and thing.is_digit:
        return _sharpened(_warped(_enlarged(thing.size, thing.sample), thing.warp))
    return _mask(thing.noun, thing.size, thing.sample)


@functools.lru_cache(maxsize=50_000)
def _mask(noun: str, size: int, sample: int) -> np.ndarray:
    if noun in DIGITS:
        return _sharpened(_enlarged(size, sample))
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


def _sharpened(image: Image.Image) -> np.ndarray:
    """An enlarged digit with sharper strokes, because enlarging blurs them: float32 array in 0 to 1."""
    return (np.asarray(image, np.float32) / 255 * 2.4 - 0.6).clip(0, 1)


def _inside(noun: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of the square [-1, 1]² are inside a shape."""
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
    """Grey backgrounds around 0, float32 [24, 160, 160]: noise, stripes and checks."""
    random_state = np.random.RandomState(20)  # the only numpy generator whose sequence never changes
    y, x = np.mgrid[:_TEXTURE_SIDE, :_TEXTURE_SIDE]
    textures = []
    for number in range(24):
        grain = random_state.standard_normal((_TEXTURE_SIDE, _TEXTURE_SIDE)) * 0.35
        coarse = Image.fromarray(random_state.standard_normal((12, 12)).astype(np.float32))
        clouds = np.asarray(coarse.resize((_TEXTURE_SIDE, _TEXTURE_SIDE), Image.Resampling.BICUBIC))
        angle, period = random_state.uniform(0, math.pi), random_state.uniform(5, 14)
        stripes = np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / period)
        checks = np.sign(np.sin(x * 2 * math.pi / period) * np.sin(y * 2 * math.pi / period))
        textures.append(grain + (clouds, stripes, checks)[number % 3])
    return np.stack(textures).astype(np.float32)


def _background(rng: random.Random) -> np.ndarray:
    """A dark texture with a slight tint, float32 [96, 96, 3]."""
    top, left = (int(rng.random() * (_TEXTURE_SIDE - IMAGE_SIZE)) for _ in range(2))
    texture = _textures()[int(rng.random() * 24), top : top + IMAGE_SIZE, left : left + IMAGE_SIZE]
    tint = np.array([45 + 50 * rng.random() for _ in range(3)], np.float32)
    return texture[..., None] * (5 + 12 * rng.random()) + tint


def _add_clutter(canvas: np.ndarray, rng: random.Random) -> None:
    """Paint up to six small grey marks, which no text mentions."""
    for _ in range(int(rng.random() * 7)):
        high, wide = 1 + int(rng.random() * 5), 1 + int(rng.random() * 5)
        top, left = int(rng.random() * (IMAGE_SIZE - high)), int(rng.random() * (IMAGE_SIZE - wide))
        canvas[top : top + high, left : left + wide] = 60 + 120 * rng.random()
