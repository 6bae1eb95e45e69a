"""Captions of the built-in scenes: true, complete where they tell scenes apart, and of a length models read."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import pytest

from madtp_cli import data
from madtp_cli.scenes import generator, splits

NOUNS, COLOURS = "|".join((*generator.DIGITS, *generator.SHAPES)), "|".join(generator.COLOURS)
#: BLIP reads so many words of a caption.
MOST_WORDS = 30
Said = tuple[str, str, tuple[str, str]]


def scene_of(row: data.Row) -> generator.Scene:
    """The one image of a row."""
    (scene,) = row.images
    assert isinstance(scene, generator.Scene)
    return scene


def corner(words: str) -> tuple[str, str]:
    """Height and side of a place, whatever it is called."""
    heights = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
    height = next((heights[word] for word in words.split() if word in heights), "")
    return height, next((word for word in ("left", "right") if word in words.split()), "")


def shown(scene: generator.Scene) -> list[Said]:
    """What a scene has: noun, colour and place of each thing."""
    middles = [(t, t.top + t.size / 2, t.left + t.size / 2) for t in scene.things]
    heights, sides = ("top", "", "bottom"), ("left", "", "right")
    return [(t.noun, t.colour, (heights[int(y // 32)], sides[int(x // 32)])) for t, y, x in middles]


def said(caption: str) -> list[Said]:
    """What a caption claims, in its order, read from its words alone."""
    claims = caption.removeprefix("we see ").removeprefix("two things ").removeprefix("three things ").split(" and ")
    found = []
    for claim in claims:
        noun, colour = re.findall(rf"\b({NOUNS})\b", claim), re.findall(rf"\b({COLOURS})\b", claim)
        assert (len(noun), len(colour)) == (1, 1), caption
        found.append((noun[0], colour[0], corner(claim)))
    return found


def test_retrieval_captions_say_all_and_nothing_else():
    """Five of each image, in different words and orders."""
    orders: Counter[int] = Counter()
    for row in splits.rows("retrieval", "test", 300):
        there = Counter(shown(scene_of(row)))
        assert row.text == row.references[0]
        assert len(set(row.references)) == 5
        orders[len({tuple(said(caption)) for caption in row.references})] += 1
        for caption in row.references:
            assert Counter(said(caption)) == there, caption
            assert len(caption.split()) <= MOST_WORDS
    assert sum(number for different, number in orders.items() if different > 1) == 300


def test_retrieval_captions_fit_one_scene():
    """At most 1 in 100 is also true of one of 1,000 test scenes that is not its own, or recall would have a ceiling."""
    rows = list(splits.rows("retrieval", "test", 1000))
    there = [Counter(shown(scene_of(row))) for row in rows]
    by_claim: dict[Said, set[int]] = {}
    for number, things in enumerate(there):
        for thing in things:
            by_claim.setdefault(thing, set()).add(number)
    several = 0
    for number, row in enumerate(rows):
        # All five claim the same, but the fifth says how many things there are.
        claims = Counter(said(row.references[0]))
        fitting = set.intersection(*(by_claim[claim] for claim in claims)) - {number}
        several += any(claims <= there[other] for other in fitting)
    assert several <= 10


def test_single_captions_are_long_and_fit_one_scene():
    """The second retrieval set: other scenes, more things, one caption that orders them."""
    rows = list(splits.read("retrieval", ["test"], captions=1).split("test")[:400])
    claims = []
    for row in rows:
        scene = scene_of(row)
        assert row.references == (row.text,)
        assert 20 < len(row.text.split()) <= MOST_WORDS
        claims.append(re.findall(rf"a ({COLOURS}) ({NOUNS}) (?:at|in) the (top|middle|bottom)", row.text))
        across = sorted(scene.things, key=lambda thing: 2 * thing.left + thing.size)
        heights = [
            "top" if t.top + t.size / 2 < 32 else "bottom" if t.top + t.size / 2 > 64 else "middle" for t in across
        ]
        assert claims[-1] == [(t.colour, t.noun, height) for t, height in zip(across, heights, strict=True)]
    assert not {scene_of(row) for row in rows} & {scene_of(row) for row in splits.rows("retrieval", "test", 400)}
    assert len(set(map(tuple, claims))) == len(claims)


def test_captions_to_be_said_are_true():
    """Worked out again from the words: every frame says what is there."""
    for row in splits.rows("caption", "test", 300):
        scene = scene_of(row)
        there = Counter((thing.colour, thing.noun) for thing in scene.things)
        across, reverse, counted, down, first = row.references
        for caption in (across, reverse, down):
            assert Counter(re.findall(rf"a ({COLOURS}) ({NOUNS})", caption)) == there
        assert re.findall(rf"a ({COLOURS}) ({NOUNS})", across)[::-1] == re.findall(rf"a ({COLOURS}) ({NOUNS})", reverse)
        digits = sum(thing.is_digit for thing in scene.things)
        numbers = [
            generator.COUNTS.index(word) for word in re.findall(rf"\b({'|'.join(generator.COUNTS)}) [ds]", counted)
        ]
        assert numbers == [digits, len(scene.things) - digits]
        assert Counter(re.findall(COLOURS, counted)) == Counter({colour for colour, _ in there})
        (claim,) = re.findall(rf"a ({COLOURS}) ({NOUNS})", first)
        left = min(scene.things, key=lambda thing: 2 * thing.left + thing.size)
        assert claim == (left.colour, left.noun)
        assert corner(first.split(" and ")[0]) == next(
            where for noun, _, where in shown(generator.Scene((left,), "", 0))
        )
        assert generator.COUNTS.index(re.findall(r"and (\w+) other", first)[0]) == len(scene.things) - 1


def test_captions_to_be_said_are_five_sentences_of_6_to_20_words():
    """Five references for CIDEr, different ones even of a single thing."""
    things: Counter[int] = Counter()
    for row in splits.rows("caption", "val", 300):
        assert len(set(row.references)) == 5
        assert all(6 <= len(caption.split()) <= 20 for caption in row.references)
        things[len(scene_of(row).things)] += 1
    assert sorted(things) == [1, 2, 3, 4]


@pytest.mark.parametrize("task", ["caption", "retrieval"])
def test_captioned_train_pictures_are_in_other_hands(task):
    """As for NLVR2; val and test are as written."""
    for split, warped in (("train", True), ("test", False)):
        drawn = list(itertools.chain(*(scene_of(row).things for row in splits.rows(task, split, 30))))
        assert all((thing.warp is not None) == warped for thing in drawn if thing.is_digit)
        assert any(thing.is_digit for thing in drawn)
