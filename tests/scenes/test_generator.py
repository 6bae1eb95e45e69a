"""The built-in scenes: their pixels, the truth of their texts, and that texts do not give answers away."""

from __future__ import annotations

import hashlib
import math
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest

from madtp_cli import data
from madtp_cli.errors import DataError, UsageError
from madtp_cli.scenes import TASKS, generator, painting, splits, text_only


@pytest.fixture(scope="module")
def test_rows() -> list[data.Row]:
    """The 2,000 test pairs that results are reported on."""
    return list(splits.rows("nlvr2", "test", 2000))


@pytest.fixture(scope="module")
def some_scenes() -> list[generator.Scene]:
    """Scenes as a training uses them."""
    rng = random.Random(5)
    return [generator.draw_scene("train", rng) for _ in range(400)]


def test_no_handwriting_is_in_two_splits():
    """A model that saw a test digit in training could remember it."""
    written = {split: {i for of_digit in painting.digit_samples(split) for i in of_digit} for split in generator.SPLITS}
    assert sum(map(len, written.values())) == len(set().union(*written.values())) == 1797
    drawn = {t.sample for p in generator.pairs("test", 300) for s in (p.left, p.right) for t in s.things if t.is_digit}
    assert len(drawn) > 100
    assert drawn <= written["test"]


def test_the_pixels_of_a_seed_never_change():
    """The example checkpoint was trained on these pixels; any change would make its results wrong."""
    digest = hashlib.sha256()
    for pair in generator.pairs("val", 20):
        digest.update(pair.left.render().tobytes() + pair.right.render().tobytes())
        digest.update(f"{pair.statement.text} {pair.label}".encode())
    assert digest.hexdigest() == "66b99967e97d7d2d2fe2818db61c4de8b87370366fcef8332f783911950f2fce"


def test_a_pair_does_not_depend_on_the_number_of_pairs():
    """`--limit` must not change the pairs that remain."""
    assert [p.left for p in generator.pairs("val", 3)] == [p.left for p in generator.pairs("val", 7)][:3]


def test_things_do_not_overlap_and_are_inside_the_picture(some_scenes):
    """A hidden thing would make a true statement look false."""
    for scene in some_scenes:
        taken = np.zeros((generator.IMAGE_SIZE, generator.IMAGE_SIZE), int)
        for thing in scene.things:
            taken[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size] += 1
        assert taken.max() == 1
        assert taken.sum() == sum(thing.size**2 for thing in scene.things)


def test_every_thing_is_painted_in_its_colour(some_scenes):
    """A thing that texts call red must have red pixels."""
    for scene in some_scenes[:60]:
        pixels = scene.render().astype(float)
        for thing in scene.things:
            area = pixels[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size]
            shown = area[generator.mask(thing) > 0.99].mean(0)
            nearest = min(generator.COLOURS, key=lambda c: 1 - _cosine(shown, generator.COLOURS[c]))
            assert nearest == thing.colour


def _cosine(a, b) -> float:
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_handwriting_of_train_digits_is_varied():
    """The samples of the train split are slightly rotated and slanted; val and test have the original handwriting."""
    rows = {split: splits.rows("nlvr2", split, 40) for split in ("train", "val", "test")}
    drawn = {split: [image for row in of for image in row.images] for split, of in rows.items()}
    things = {
        split: [thing for scene in of if isinstance(scene, generator.Scene) for thing in scene.things if thing.is_digit]
        for split, of in drawn.items()
    }
    assert all(thing.warp is not None for thing in things["train"])
    assert {thing.sample for thing in things["train"]} <= {i for ids in painting.digit_samples("train") for i in ids}
    assert all(thing.warp is None for split in ("val", "test") for thing in things[split])
    for thing in things["train"]:
        plain = generator.mask(replace(thing, warp=None))
        assert generator.mask(thing).shape == plain.shape
        assert not np.array_equal(generator.mask(thing), plain)
        assert 0.5 < generator.mask(thing).sum() / plain.sum() < 1.6


def test_the_label_of_every_statement_is_right(test_rows):
    """The test computes the label from the words alone, for every test row."""
    for row in test_rows:
        assert _holds(row.text, *row.images) == bool(row.label), row.text


def _holds(text: str, left: generator.Scene, right: generator.Scene) -> bool:
    words = text.split()
    if text.startswith("at least one"):
        return _number(words[6:], left) + _number(words[6:], right) > 0
    if text.startswith("both images contain the same"):
        return _number(words[7:], left) == _number(words[7:], right)
    if text.startswith("both images"):
        return _number(words[4:], left) > 0 and _number(words[4:], right) > 0
    if text.startswith("there are more"):
        first, second = (left, right) if words[-2] == "left" else (right, left)
        return _number(words[3:-4], first) > _number(words[3:-4], second)
    if text.startswith("there is"):
        return _number(words[3:-4], left if words[-2] == "left" else right) > 0
    assert words[2:5] == ["image", "contains", "exactly"], text
    return _number(words[6:], left if words[1] == "left" else right) == generator.COUNTS.index(words[5])


def _number(phrase: list[str], scene: generator.Scene) -> int:
    """Return how many things words such as "red digits", "cross" or "things" describe."""
    *colour, noun = phrase
    noun = noun if noun == "cross" else noun.removesuffix("s")
    nouns = {"digit": generator.DIGITS, "shape": generator.SHAPES, "thing": generator.DIGITS + generator.SHAPES}.get(
        noun, (noun,)
    )
    return sum(t.noun in nouns and (not colour or [t.colour] == colour) for t in scene.things)


def test_each_kind_is_as_often_true_as_false(test_rows):
    """The tolerance is four standard errors of a fair coin: always answering "true" must not help."""
    for kind in generator.KINDS:
        labels = [row.label for row in test_rows if row.kind == kind]
        assert len(labels) > 250
        assert abs(np.mean(labels) - 0.5) < 4 * 0.5 / math.sqrt(len(labels))


def test_no_kind_can_be_solved_without_the_images(test_rows):
    """Otherwise the accuracy would tell little about how the images are used."""
    train = splits.rows("nlvr2", "train", 4000)
    found = text_only.accuracy(train, test_rows)
    assert set(found) == {"all", *generator.KINDS}
    for result in found.values():
        assert abs(result.accuracy - 50) < 4 * 50 / math.sqrt(result.samples)


def test_rows_are_generated_on_access_only():
    """`--limit 16` on 20,000 train pairs must start at once."""
    splits._row.cache_clear()
    train = splits.read("nlvr2").split("train")
    assert len(train) == 20_000
    assert len(train[5:50][:3]) == 3
    assert splits._row.cache_info().misses == 0
    assert train[5:50][2] == train[7]
    assert train[-1] == train[19_999]
    assert splits._row.cache_info().misses == 2
    with pytest.raises(IndexError):
        train[20_000]


def test_the_rows_are_the_pairs_of_the_generator(test_rows):
    """The recorded accuracy of the checkpoint is for `generator.pairs`, and commands use these rows."""
    for row, pair in zip(test_rows, generator.pairs("test", 20), strict=False):
        assert (row.images, row.text) == ((pair.left, pair.right), pair.statement.text)
        assert (row.label, row.kind) == (int(pair.label), pair.statement.kind)


def test_rows_can_be_pickled_for_worker_processes(test_rows):
    """Statements hold functions, which cannot be pickled, so rows must not contain them."""
    assert pickle.loads(pickle.dumps(test_rows[3])) == test_rows[3]


def test_the_vocabulary_is_the_words_of_all_tasks(test_rows):
    """A tokenizer spells a missing word letter by letter, and a model never learns a word that no text has."""
    rows = [*test_rows[:500], *(row for task in TASKS[1:] for row in splits.rows(task, "val", 200))]
    rows += splits.rows("retrieval", "val", 100, captions=1)
    words = {word for row in rows for text in (row.text, *row.references) for word in text.split()}
    assert generator.vocabulary() == sorted(words)


@pytest.mark.parametrize(
    ("task", "captions"), [("nlvr2", None), ("vqa", None), ("caption", None), ("retrieval", 5), ("retrieval", 1)]
)
def test_a_row_does_not_depend_on_other_rows(task, captions):
    """`--limit` and slices must not change the rows that remain."""
    first = list(splits.rows(task, "val", 3, captions))
    splits._row.cache_clear()
    again = splits.rows(task, "val", 40, captions)
    assert [again[2], again[1:][0], again[0]] == [first[2], first[1], first[0]]
    assert len({row.images for row in again}) == 40


def test_the_number_of_rows_depends_on_the_task():
    """Retrieval compares every text with every image, so it has fewer."""
    found = {task: {split: len(rows) for split, rows in splits.read(task).splits.items()} for task in TASKS}
    for fewer in (found.pop("retrieval"), found.pop("embedding")):
        assert fewer == {"train": 20_000, "val": 500, "test": 1_000}
    assert all(sizes == {"train": 20_000, "val": 1_000, "test": 2_000} for sizes in found.values())


@pytest.mark.parametrize(("task", "captions"), [("caption", 1), ("vqa", 5), ("retrieval", 3), ("retrieval", 0)])
def test_a_wrong_number_of_captions_is_an_error(task, captions):
    """No scene is generated before the error."""
    with pytest.raises(UsageError, match=f"no {task} data with --captions {captions}"):
        splits.read(task, captions=captions)


def test_a_task_without_scenes_is_an_error():
    """The message names the tasks that have scenes."""
    with pytest.raises(UsageError, match="have no data for task 'poetry'; they have nlvr2, vqa, caption, retrieval"):
        splits.read("poetry")


def test_a_missing_split_is_named():
    """A split that was not requested gives a readable error and not a KeyError."""
    with pytest.raises(DataError, match="There is no test split in the built-in scenes; found: val"):
        splits.read("nlvr2", ["val"]).split("test")


@pytest.mark.parametrize(
    ("task", "captions", "digest"),
    [
        ("nlvr2", None, "16fa9f2f71a49df694c54019d24e6ce4"),
        ("vqa", None, "cd718ee9d9400b2e3671ec9492b0a1c7"),
        ("caption", None, "0ce3d986ee654657100d6eebb05d0345"),
        ("retrieval", 5, "62bd6fcd4302a63b8e5ef128d1aff62f"),
        ("retrieval", 1, "7ea397c1144d1c46e5c482b317e90d8e"),
    ],
)
def test_the_rows_of_every_task_never_change(task, captions, digest):
    """Texts, labels, references and things: the example checkpoints were trained and measured on these rows."""
    found = hashlib.sha256()
    for split in ("train", "val", "test"):
        for row in splits.rows(task, split, 30, captions):
            scenes = [_content(scene) for scene in row.images]
            content = (row.identifier, row.text, row.label, row.kind, row.references, scenes)
            found.update(repr(content).encode())
    assert found.hexdigest()[:32] == digest


def _content(scene: object) -> tuple[object, ...]:
    """A scene without the numbers of warps, whose last digits may differ between machines."""
    assert isinstance(scene, generator.Scene)
    things = [(t.noun, t.colour, t.left, t.top, t.size, t.sample, t.warp is None) for t in scene.things]
    return scene.split, scene.seed, things
