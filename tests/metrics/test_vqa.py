"""VQA accuracy equals that of the official evaluation."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.errors import DataError
from madtp_cli.metrics.vqa import normalised, soft_score

ANSWERS = st.sampled_from(["2", "two", "Two.", "a dog", "dog", "dont", "don't", "t-shirt", "t shirt", "red, blue", ""])


@pytest.mark.parametrize(
    ("answer", "compared"),
    [
        ("The Dog", "dog"),
        ("none", "0"),
        ("ten", "10"),
        ("twenty", "twenty"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("wed", "wed"),
        ("girl's", "girl's"),
        ("2:50 pm", "2:50 pm"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("100,978", "100978"),
        ("t-shirt", "t shirt"),
        ("red,blue", "red blue"),
        ("yes\nno", "yes no"),
        ("x-\ny-z", "x yz"),
        # A punctuation mark next to a space is removed everywhere; a number with a comma removes all marks.
        ("x - y-z", "x yz"),
        ("1,000 t-shirts", "1000 tshirts"),
        # Punctuation is removed before articles and contractions, so these can appear by its removal.
        ("a-frame", "frame"),
        ("(dont)", "don't"),
        ("somebody'd", "somebodyd"),
    ],
)
def test_answers_are_normalised_as_in_the_official_evaluation(answer, compared):
    """With another normalisation the figures could not be compared with published ones."""
    assert normalised(answer) == compared


@pytest.mark.parametrize(("agree", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1)])
def test_ten_annotators_are_averaged_over_leaving_one_out(agree, score):
    """Three matching references of ten give 0.9, because in three of ten sets one of them is missing."""
    assert soft_score("Red", ["red"] * agree + ["a blue"] * (10 - agree)) == pytest.approx(score)


@given(ANSWERS, st.lists(ANSWERS, min_size=10, max_size=12).filter(lambda given: len(set(given)) > 1))
def test_the_average_is_over_all_subsets(answer, references):
    """The closed form equals the definition: the mean of min(n/3, 1) over all subsets without one annotator."""
    subsets = list(combinations([normalised(reference) for reference in references], len(references) - 1))
    scores = [min(subset.count(normalised(answer)) / 3, 1) for subset in subsets]
    assert soft_score(answer, references) == pytest.approx(sum(scores) / len(scores))


@pytest.mark.parametrize(
    ("references", "score"),
    [
        (["a red one"], 1),
        (["blue"], 0),
        (["red 1", "blue"], 1 / 2),
        (["red 1", "blue", "green"], 1 / 3),
        (["red 1"] * 3 + ["blue"] * 6, 1),
        (["red 1"] * 2 + ["blue"] * 7, 2 / 3),
    ],
)
def test_fewer_than_three_references_can_give_a_full_score(references, score):
    """A data set with one answer per question must be able to reach 100 percent."""
    assert soft_score("Red one.", references) == pytest.approx(score)


def test_ten_equal_references_are_compared_without_normalisation():
    """The official code does so; it does not define the score for fewer references."""
    assert soft_score("t shirt", ["t-shirt"] * 10) == 0
    assert soft_score("2", ["two"] * 10) == 0
    assert soft_score(" t-shirt\n", ["t-shirt"] * 10) == 1
    assert soft_score("t shirt", ["t-shirt"] * 9) == 1


def test_a_question_without_an_answer_is_refused():
    """Its score is not defined."""
    with pytest.raises(DataError, match="without a reference answer"):
        soft_score("yes", [])
