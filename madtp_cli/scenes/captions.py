"""Captions of a scene, of three kinds: to be said, to be found by, and one long one to be found by.

None is longer than the 30 words that BLIP reads of a caption.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from madtp_cli.scenes.composition import COUNTS, Phrase, Scene, ninth, place, plural
from madtp_cli.scenes.painting import COLOURS, DIGITS, IMAGE_SIZE, SHAPES, Thing

#: How places are said, by the words that end their names; all others are "at".
_PREPOSITIONS = {"left": "on the left", "right": "on the right", "middle": "in the middle"}
#: The same places in other words, by row and column.
_CORNERS = (
    ("upper left", "upper centre", "upper right"),
    ("centre left", "centre", "centre right"),
    ("lower left", "lower centre", "lower right"),
)
_HEIGHTS = ("at the top", "in the middle", "at the bottom")
_OTHERS = ("and no other thing", "and one other thing", "and two other things", "and three other things")


def captions(scene: Scene) -> list[str]:
    """Five captions of 6 to 20 words, each in its own frame and order, for a model to learn to say."""
    across, down = _across(scene), _down(scene)
    named = [_coloured(thing) for thing in across]
    digits, shapes = scene.count(Phrase("digit")), scene.count(Phrase("shape"))
    numbers = f"{COUNTS[digits]} {plural('digit', digits)} and {COUNTS[shapes]} {plural('shape', shapes)}"
    colours = [colour for colour in COLOURS if scene.count(Phrase(None, colour))]
    return [
        f"{' and '.join(named)} on a dark background",
        f"the picture shows {' and '.join(reversed(named))}",
        f"{numbers} in {' and '.join(colours)}",
        f"from top to bottom {' then '.join(map(_coloured, down))}",
        f"{named[0]} {_where(across[0])} {_OTHERS[len(named) - 1]}",
    ]


def placed_captions(scene: Scene) -> list[str]:
    """Five captions that name every thing with colour, noun and place, to tell scenes of 2 or 3 things apart.

    Their words and orders differ: from the left, the right, the top, the bottom, shapes before digits.
    """
    across, down = _across(scene), _down(scene)
    apart = sorted(across, key=lambda thing: thing.is_digit)
    return [
        " and ".join(f"{_coloured(thing)} {_where(thing)}" for thing in across),
        " and ".join(f"{_where(thing)} is {_coloured(thing)}" for thing in reversed(across)),
        " and ".join(f"the {thing.noun} {_where(thing)} is {thing.colour}" for thing in down),
        "we see " + " and ".join(f"{_plain(thing)} in {thing.colour} {_where(thing)}" for thing in reversed(down)),
        f"{COUNTS[len(apart)]} things "
        + " and ".join(f"{_coloured(thing)} in the {_corner(thing)}" for thing in apart),
    ]


def long_caption(scene: Scene) -> str:
    """One caption that names every thing in order from the left with its height, for scenes of 3 or 4 things."""
    *first, last = [f"{_coloured(thing)} {_HEIGHTS[ninth(thing)[0]]}" for thing in _across(scene)]
    return f"from left to right {' '.join(first)} and {last}"


def sayings() -> Iterator[str]:
    """Captions that have every word a caption can have."""
    step = IMAGE_SIZE // 3
    ninths = [(left, top) for left in range(0, IMAGE_SIZE, step) for top in range(0, IMAGE_SIZE, step)]
    for noun, colour, (left, top) in itertools.product((*DIGITS, *SHAPES), COLOURS, ninths):
        one = Thing(noun, colour, left, top, step)
        for number in range(1, len(_OTHERS) + 1):
            scene = Scene(tuple(replace(one, left=left + i) for i in range(number)), "train", 0)
            yield from captions(scene)
            if number > 1:
                yield from (*placed_captions(scene), long_caption(scene))


def _across(scene: Scene) -> list[Thing]:
    return sorted(scene.things, key=lambda thing: thing.left + thing.size / 2)


def _down(scene: Scene) -> list[Thing]:
    return sorted(scene.things, key=lambda thing: thing.top + thing.size / 2)


def _coloured(thing: Thing) -> str:
    return f"a {thing.colour} {thing.noun}"


def _plain(thing: Thing) -> str:
    return f"{'an' if thing.noun == 'eight' else 'a'} {thing.noun}"


def _where(thing: Thing) -> str:
    name = place(thing)
    return _PREPOSITIONS.get(name, f"at the {name}")


def _corner(thing: Thing) -> str:
    row, column = ninth(thing)
    return _CORNERS[row][column]
