"""Recall between images and texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.errors import DataError
from madtp_cli.metrics.retrieval import DEPTHS, Ranks, rank

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, images: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Return scores without ties, and the image of each text in random order, one to four texts per image."""
    rng = np.random.default_rng(seed)
    image_of_text = rng.permutation(np.repeat(np.arange(images), rng.integers(1, 5, images)))
    return rng.permutation(images * len(image_of_text)).reshape(images, -1) / 10, image_of_text


def by_sorting(scores: np.ndarray, correct: np.ndarray) -> list[int]:
    """Return the position of the first correct column of each sorted row."""
    return [int(np.argmax(belongs[np.argsort(-row)])) for row, belongs in zip(scores, correct, strict=True)]


@given(SEEDS)
def test_ranks_are_equal_to_those_of_sorting(seed):
    """Counting is faster and handles ties; without ties it must give the same ranks."""
    scores, image_of_text = drawn(seed)
    correct = image_of_text == np.arange(len(scores))[:, None]
    ranks = rank(scores, image_of_text)
    assert ranks.texts_found.tolist() == by_sorting(scores, correct)
    assert ranks.images_found.tolist() == by_sorting(scores.T, correct.T)


@given(SEEDS)
def test_re_ranking_only_the_best_does_not_change_recall_within_them(seed):
    """BLIP re-ranks only the first candidates; with the same scores recall up to that depth must not change."""
    scores, image_of_text = drawn(seed)
    full, best = rank(scores, image_of_text), 5
    forth, back = (np.where(s >= np.sort(s, 1)[:, -best:][:, :1], s, -np.inf) for s in (scores, scores.T))
    kept = rank(forth, image_of_text, back)
    for depth in (1, 5):
        assert np.array_equal(kept.texts_found < depth, full.texts_found < depth)
        assert np.array_equal(kept.images_found < depth, full.images_found < depth)


def test_each_direction_can_have_its_own_scores():
    """A re-ranked pair can have a score in only one direction."""
    forth, back = np.eye(3), np.roll(np.eye(3), 1, axis=1)
    assert rank(forth, [0, 1, 2], back).recalls()["TR@1"] == 1
    assert rank(forth, [0, 1, 2], back).recalls()["IR@1"] == 0


@pytest.mark.parametrize("constant", [0.0, float("nan"), -np.inf])
def test_a_model_with_equal_scores_has_recall_zero(constant):
    """Sorting would rank the first candidates first, and these are often the correct ones."""
    recalls = rank(np.full((12, 24), constant), np.repeat(np.arange(12), 2)).recalls()
    assert set(recalls.values()) == {0.0}


def test_a_wrong_candidate_with_the_same_score_comes_first():
    """Ties are frequent in half precision."""
    ranks = rank([[0.5, 0.5, 0.1], [0.3, 0.2, 0.2]], [0, 1, 1])
    assert ranks.texts_found.tolist() == [1, 1]
    assert ranks.images_found.tolist() == [0, 1, 0]


def test_correct_texts_of_an_image_do_not_count_as_wrong():
    """Each of five captions is correct for an image, also if all five have the same score."""
    ranks = rank([[0.9] * 5 + [0.8], [0.1] * 5 + [0.7]], [0] * 5 + [1])
    assert ranks.texts_found.tolist() == [0, 0]


@pytest.mark.parametrize("position", [(0, 0), (0, 1)])
def test_nan_counts_against_the_model(position):
    """Half precision can overflow; a wrong candidate with NaN ranks first, and a correct one does not."""
    scores = np.array([[0.9, 0.1], [0.1, 0.9]])
    scores[position] = np.nan
    assert rank(scores, [0, 1]).texts_found.tolist() == [1, 0]


def test_recalls_are_the_closed_form():
    """Rank 0 is within 1, rank 4 within 5, rank 9 within 10, and rank 10 is not."""
    recalls = Ranks(np.array([0, 4, 9, 10]), np.array([0, 0, 1, 7]), np.arange(4)).recalls()
    text_recalls = {"TR@1": 1 / 4, "TR@5": 2 / 4, "TR@10": 3 / 4, "TR": 1 / 2}
    image_recalls = {"IR@1": 2 / 4, "IR@5": 3 / 4, "IR@10": 1, "IR": 3 / 4}
    assert recalls == pytest.approx(text_recalls | image_recalls | {"R": 5 / 8})


@given(SEEDS)
def test_hits_and_scores_average_to_the_recalls(seed):
    """The interval of the scores is that of R only if their mean is R, also with different numbers of captions."""
    ranks = rank(*drawn(seed, images=13))
    recalls = ranks.recalls()
    for depth in DEPTHS:
        assert np.mean(ranks.texts_found < depth) == pytest.approx(recalls[f"TR@{depth}"])
        assert np.mean(ranks.images_found < depth) == pytest.approx(recalls[f"IR@{depth}"])
    assert len(ranks.scores()) == 13
    assert np.mean(ranks.scores()) == pytest.approx(recalls["R"])


def test_the_score_of_an_image_combines_its_own_recall_and_that_of_its_texts():
    """Image 0 ranks a text first; one of its two texts ranks it first, the other does not find it."""
    ranks = Ranks(np.array([0, 20]), np.array([0, 20, 20, 20]), np.array([0, 0, 1, 1]))
    assert ranks.scores() == pytest.approx([(1 + 1 / 2) / 2, 0])


@pytest.mark.parametrize(
    ("image_of_text", "back", "message"),
    [
        ([0, 1], None, "do not fit 2 texts"),
        ([0, 1, 1], np.zeros((2, 3)), "do not fit 3 texts"),
        ([0, 0, 0], None, "each with at least one text"),
        ([0, 1, 2], None, "must be 0 to 1"),
    ],
)
def test_scores_that_do_not_fit_are_refused(image_of_text, back, message):
    """numpy would broadcast some of them and give a wrong figure."""
    with pytest.raises(DataError, match=message):
        rank(np.zeros((2, 3)), image_of_text, back)
