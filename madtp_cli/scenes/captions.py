"""Captions of a scene, of three kinds: for captioning, for retrieval, and one long caption for retrieval.

No caption has more than 30 words, the limit of BLIP.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from madtp_cli.scenes.composition import COUNTS, Phrase, Scene, grid_cell, place_name, plural
from madtp_cli.scenes.painting import COLOURS, DIGITS, IMAGE_SIZE, SHAPES, Thing

#: Phrases for the places in the middle row; all other places take "at the".
_PREPOSITIONS = {"left": "on the left", "right": "on the right", "middle": "in the middle"}
#: Other names of the same places, by row and column.
_CORNERS = (
    ("upper left", "upper centre", "upper right"),
    ("centre left", "centre", "centre right"),
    ("lower left", "lower centre", "lower right"),
)
_HEIGHTS = ("at the top", "in the middle", "at the bottom")
_OTHER_COUNTS = ("and no other thing", "and one other thing", "and two other things", "and three other things")


def captions(scene: Scene) -> list[str]:
    """Return five captions of 6 to 20 words with different sentence structures and orders, for image captioning."""
    from_left, from_top = _from_left(scene), _from_top(scene)
    named = [_coloured(thing) for thing in from_left]
    digits, shapes = scene.count(Phrase("digit")), scene.count(Phrase("shape"))
    numbers = f"{COUNTS[digits]} {plural('digit', digits)} and {COUNTS[shapes]} {plural('shape', shapes)}"
    colours = [colour for colour in COLOURS if scene.count(Phrase(None, colour))]
    return [
        f"{' and '.join(named)} on a dark background",
        f"the picture shows {' and '.join(reversed(named))}",
        f"{numbers} in {' and '.join(colours)}",
        f"from top to bottom {' then '.join(map(_coloured, from_top))}",
        f"{named[0]} {_place_phrase(from_left[0])} {_OTHER_COUNTS[len(named) - 1]}",
    ]


def placed_captions(scene: Scene) -> list[str]:
    """Return five captions that distinguish scenes of 2 or 3 things: they name every thing with colour and place.

    Their words and orders differ: from the left, the right, the top, the bottom, and shapes before digits.
    """
    from_left, from_top = _from_left(scene), _from_top(scene)
    shapes_first = sorted(from_left, key=lambda thing: thing.is_digit)
    return [
        " and ".join(f"{_coloured(thing)} {_place_phrase(thing)}" for thing in from_left),
        " and ".join(f"{_place_phrase(thing)} is {_coloured(thing)}" for thing in reversed(from_left)),
        " and ".join(f"the {thing.noun} {_place_phrase(thing)} is {thing.colour}" for thing in from_top),
        "we see "
        + " and ".join(
            f"{_uncoloured(thing)} in {thing.colour} {_place_phrase(thing)}" for thing in reversed(from_top)
        ),
        f"{COUNTS[len(shapes_first)]} things "
        + " and ".join(f"{_coloured(thing)} in the {_other_place_name(thing)}" for thing in shapes_first),
    ]


def long_caption(scene: Scene) -> str:
    """Return one caption that names every thing from the left with its height, for scenes of 3 or 4 things."""
    *first, last = [f"{_coloured(thing)} {_HEIGHTS[grid_cell(thing)[0]]}" for thing in _from_left(scene)]
    return f"from left to right {' '.join(first)} and {last}"


def example_texts() -> Iterator[str]:
    """Yield captions that together contain every word a caption can contain."""
    step = IMAGE_SIZE // 3
    cells = [(left, top) for left in range(0, IMAGE_SIZE, step) for top in range(0, IMAGE_SIZE, step)]
    for noun, colour, (left, top) in itertools.product((*DIGITS, *SHAPES), COLOURS, cells):
        thing = Thing(noun, colour, left, top, step)
        for number in range(1, len(_OTHER_COUNTS) + 1):
            scene = Scene(tuple(replace(thing, left=left + i) for i in range(number)), "train", 0)
            yield from captions(scene)
            if number > 1:
                yield from (*placed_captions(scene), long_caption(scene))


def _from_left(scene: Scene) -> list[Thing]:
    return sorted(scene.things, key=lambda thing: thing.left + thing.size / 2)


def _from_top(scene: Scene) -> list[Thing]:
    return sorted(scene.things, key=lambda thing: thing.top + thing.size / 2)


def _coloured(thing: Thing) -> str:
    return f"a {thing.colour} {thing.noun}"


def _uncoloured(thing: Thing) -> str:
    return f"{'an' if thing.noun == 'eight' else 'a'} {thing.noun}"


def _place_phrase(thing: Thing) -> str:
    name = place_name(thing)
    return _PREPOSITIONS.get(name, f"at the {name}")


def _other_place_name(thing: Thing) -> str:
    row, column = grid_cell(thing)
    return _CORNERS[row][column]
