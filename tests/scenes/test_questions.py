"""VQA's built-in data: the answers are right, and the questions do not give them away."""

from __future__ import annotations

import math
import random

import pytest

from madtp_cli import data
from madtp_cli.scenes import composition, generator, questions, splits, text_only

WORDS = {"digit": generator.DIGITS, "shape": generator.SHAPES, "thing": generator.DIGITS + generator.SHAPES}
ROWS = ("top", "", "bottom")
COLUMNS = ("left", "", "right")


@pytest.fixture(scope="module")
def rows() -> list[data.Row]:
    """Test questions."""
    return list(splits.rows("vqa", "test", 500))


@pytest.fixture(scope="module")
def train() -> list[data.Row]:
    """Train questions."""
    return list(splits.rows("vqa", "train", 900))


def matching(words: list[str], scene: generator.Scene) -> list[generator.Thing]:
    """Return the things that words such as "red digits", "cross" or "thing" describe."""
    *colour, noun = words
    noun = noun if noun == "cross" else noun.removesuffix("s")
    return [t for t in scene.things if t.noun in WORDS.get(noun, (noun,)) and (not colour or [t.colour] == colour)]


def expected(question: str, scene: generator.Scene) -> tuple[str, str]:
    """Return kind and answer, from the words and the numbers in the scene."""
    words = question.split()
    if words[:2] == ["is", "there"]:
        return "existence", "yes" if matching(words[3:], scene) else "no"
    if words[:2] == ["how", "many"]:
        return "count", str(len(matching(words[2:-2], scene)))
    kinds = {"what colour is the": "colour", "what is the": "identity", "where is the": "position"}
    kind = kinds[" ".join(words[: words.index("the") + 1])]
    (thing,) = matching(words[words.index("the") + 1 :], scene)
    if kind == "colour":
        return kind, thing.colour
    if kind == "identity":
        return kind, str(generator.DIGITS.index(thing.noun)) if thing.is_digit else thing.noun
    across, down = thing.left + thing.size / 2, thing.top + thing.size / 2
    name = f"{ROWS[(down > 32) + (down > 64)]} {COLUMNS[(across > 32) + (across > 64)]}".strip()
    return kind, name or "middle"


def test_every_answer_is_right(rows):
    """All ten references are the right answer."""
    for row in rows:
        (scene,) = row.images
        assert isinstance(scene, generator.Scene)
        kind, answer = expected(row.text, scene)
        assert (row.kind, row.references, row.label) == (kind, (answer,) * 10, None), row.text


def test_every_further_question_about_a_scene_has_the_right_answer():
    """A training uses more questions about one image; they have the same meaning."""
    rng = random.Random(3)
    for _ in range(40):
        scene = generator.draw_scene("train", rng)
        found = generator.questions(scene)
        assert len(found) > 100
        for question in found:
            assert (question.kind, question.answer) == expected(question.text, scene), question.text


def test_no_question_asks_for_a_place_on_a_border():
    """Two people could give different answers, and both would be right."""
    for left, answers in ((10, ["top left"]), (18, []), (40, ["top"])):  # the centre is at 24, 32 and 54
        scene = generator.Scene((generator.Thing("ring", "red", left, 2, 28),), "test", 0)
        about_places = [question for question in generator.questions(scene) if question.kind == "position"]
        assert sorted({question.answer for question in about_places}) == answers


def test_every_answer_is_in_the_answer_list(rows, train):
    """A model could never give an answer that is missing; an answer that is never right would only cost time."""
    listed = generator.answers()
    assert listed == sorted(set(listed))
    assert {row.references[0] for row in [*rows, *train]} == set(listed)


def test_answers_are_written_as_vqa_normalises_them():
    """The normalisation removes articles and writes numbers as figures."""
    numbers = {"none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"}
    for answer in generator.answers():
        assert not {"a", "an", "the", *numbers} & set(answer.split())
        assert answer == answer.lower().strip()


def test_questions_do_not_give_their_answers_away(rows, train):
    """Without the image, the accuracy is one divided by the number of answers, within four standard errors."""
    found = text_only.accuracy(train, rows)
    assert set(found) == {"all", *questions.ANSWERS}
    for kind, answers in questions.ANSWERS.items():
        chance, number = 1 / len(answers), found[kind].samples
        assert number > 60
        assert found[kind].accuracy < 100 * (chance + 4 * math.sqrt(chance * (1 - chance) / number))


def test_other_things_do_not_give_the_colour_away(rows, train):
    """A model that names the most frequent colour has not understood which thing the question is about."""
    rest = []
    for row in (row for row in (*rows, *train) if row.kind == "colour"):
        (scene,) = row.images
        assert isinstance(scene, generator.Scene)
        others = [thing for thing in scene.things if thing.noun != row.text.split()[-1]]
        rest += [thing.colour == row.references[0] for thing in others]
    assert len(rest) > 200
    assert abs(sum(rest) / len(rest) - 1 / 6) < 4 * math.sqrt(1 / 6 * 5 / 6 / len(rest))


def test_the_handwriting_of_train_images_is_varied():
    """This is the same as for NLVR2; val and test have the original handwriting."""
    for split, warped in (("train", True), ("val", False)):
        drawn = [image for row in splits.rows("vqa", split, 30) for image in row.images]
        things = [thing for scene in drawn if isinstance(scene, generator.Scene) for thing in scene.things]
        digits = [thing for thing in things if thing.is_digit]
        assert digits
        assert all((thing.warp is not None) == warped for thing in digits)


def test_places_are_the_cells_of_a_grid():
    """They are named row by row."""
    corners = [generator.Thing("star", "red", left, top, 24) for top in (0, 36, 72) for left in (0, 36, 72)]
    assert [composition.place_name(thing) for thing in corners] == [name for row in composition.PLACES for name in row]
