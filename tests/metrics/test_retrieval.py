"""Recall between images and their texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.errors import DataError
from madtp_cli.metrics.retrieval import DEPTHS, Ranks, rank

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, images: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Scores without ties and texts in any order, one to four per image."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(images), rng.integers(1, 5, images)))
    return rng.permutation(images * len(owner)).reshape(images, -1) / 10, owner


def by_sorting(scores: np.ndarray, right: np.ndarray) -> list[int]:
    """Place of each row's first right column when the row is sorted."""
    return [int(np.argmax(belongs[np.argsort(-row)])) for row, belongs in zip(scores, right, strict=True)]


@given(SEEDS)
def test_ranks_are_those_of_sorting(seed):
    """Counting is quicker and knows ties; without ties it must find what sorting finds."""
    scores, owner = drawn(seed)
    right = owner == np.arange(len(scores))[:, None]
    ranks = rank(scores, owner)
    assert ranks.texts_found.tolist() == by_sorting(scores, right)
    assert ranks.images_found.tolist() == by_sorting(scores.T, right.T)


@given(SEEDS)
def test_reranking_the_best_alone_leaves_recall_within_them_as_it_is(seed):
    """BLIP scores only each query's first candidates anew; with the same scores nothing may change up to that depth."""
    scores, owner = drawn(seed)
    full, best = rank(scores, owner), 5
    forth, back = (np.where(s >= np.sort(s, 1)[:, -best:][:, :1], s, -np.inf) for s in (scores, scores.T))
    kept = rank(forth, owner, back)
    for depth in (1, 5):
        assert kept.text_hits(depth) == full.text_hits(depth)
        assert kept.image_hits(depth) == full.image_hits(depth)


def test_each_direction_has_its_own_scores():
    """A re-ranked pair has two scores, one per direction."""
    forth, back = np.eye(3), np.roll(np.eye(3), 1, axis=1)
    assert rank(forth, [0, 1, 2], back).recalls()["TR@1"] == 1
    assert rank(forth, [0, 1, 2], back).recalls()["IR@1"] == 0


@pytest.mark.parametrize("constant", [0.0, float("nan"), -np.inf])
def test_a_model_that_tells_nothing_finds_nothing(constant):
    """Sorting would put the first candidates in front, and those are often the right ones."""
    recalls = rank(np.full((12, 24), constant), np.repeat(np.arange(12), 2)).recalls()
    assert set(recalls.values()) == {0.0}


def test_a_wrong_candidate_with_the_same_score_comes_first():
    """Half-precision scores tie often."""
    ranks = rank([[0.5, 0.5, 0.1], [0.3, 0.2, 0.2]], [0, 1, 1])
    assert ranks.texts_found.tolist() == [1, 1]
    assert ranks.images_found.tolist() == [0, 1, 0]


def test_the_image_s_own_texts_do_not_stand_in_each_other_s_way():
    """Any one of five captions is right for an image, even if all five score the same."""
    ranks = rank([[0.9] * 5 + [0.8], [0.1] * 5 + [0.7]], [0] * 5 + [1])
    assert ranks.texts_found.tolist() == [0, 0]


@pytest.mark.parametrize("place", [(0, 0), (0, 1)])
def test_a_score_that_is_no_number_counts_against_the_model(place):
    """Half precision overflows; a wrong NaN may not lose against the right score, nor a right one win."""
    scores = np.array([[0.9, 0.1], [0.1, 0.9]])
    scores[place] = np.nan
    assert rank(scores, [0, 1]).texts_found.tolist() == [1, 0]


def test_recalls_are_the_closed_form():
    """Ranks 0, 4, 9 and 10 are within 1, within 5, within 10 and beyond."""
    recalls = Ranks(np.array([0, 4, 9, 10]), np.array([0, 0, 1, 7]), np.arange(4)).recalls()
    text_recalls = {"TR@1": 1 / 4, "TR@5": 2 / 4, "TR@10": 3 / 4, "TR": 1 / 2}
    image_recalls = {"IR@1": 2 / 4, "IR@5": 3 / 4, "IR@10": 1, "IR": 3 / 4}
    assert recalls == pytest.approx(text_recalls | image_recalls | {"R": 5 / 8})


@given(SEEDS)
def test_hits_and_scores_average_to_the_recalls(seed):
    """An interval of the scores is one of the figure only if their mean is the figure, also with unequal captions."""
    ranks = rank(*drawn(seed, images=13))
    recalls = ranks.recalls()
    for depth in DEPTHS:
        assert np.mean(ranks.text_hits(depth)) == pytest.approx(recalls[f"TR@{depth}"])
        assert np.mean(ranks.image_hits(depth)) == pytest.approx(recalls[f"IR@{depth}"])
    assert len(ranks.scores()) == 13
    assert np.mean(ranks.scores()) == pytest.approx(recalls["R"])


def test_an_image_s_score_is_its_own_and_its_texts():
    """Image 0 finds a text at once, of its two texts one finds it at once and one not at all; image 1 finds nothing."""
    ranks = Ranks(np.array([0, 20]), np.array([0, 20, 20, 20]), np.array([0, 0, 1, 1]))
    assert ranks.scores() == pytest.approx([(1 + 1 / 2) / 2, 0])


@pytest.mark.parametrize(
    ("owner", "back", "message"),
    [
        ([0, 1], None, "do not fit 2 texts"),
        ([0, 1, 1], np.zeros((2, 3)), "do not fit 3 texts"),
        ([0, 0, 0], None, "each with a text"),
        ([0, 1, 2], None, "not just 0 to 1"),
    ],
)
def test_scores_that_do_not_fit_are_refused(owner, back, message):
    """Numpy would broadcast some of them into a plausible figure."""
    with pytest.raises(DataError, match=message):
        rank(np.zeros((2, 3)), owner, back)
