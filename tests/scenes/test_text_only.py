"""The text-only accuracy finds answers that the texts give away, and no others."""

from __future__ import annotations

import pytest

from madtp_cli import data
from madtp_cli.scenes import text_only


def test_labels_that_follow_from_words_are_predicted():
    """A check that always reports chance would be useless."""
    rows = [data.Row(str(i), (), f"the {'red' if i % 3 else 'blue'} one {i}", int(i % 3 > 0)) for i in range(300)]
    assert text_only.accuracy(rows[:200], rows[200:])["all"] == text_only.TextOnly(100.0, 100)


def test_answers_that_follow_from_words_are_predicted():
    """There are three answers, and no question of the test rows occurs in the train rows."""
    colours = {"sky": "blue", "grass": "green", "blood": "red"}
    rows = [
        data.Row(str(i), (), f"what colour is the {noun} {i}", kind="colour", references=(answer,) * 10)
        for i in range(60)
        for noun, answer in colours.items()
    ]
    assert text_only.accuracy(rows[:90], rows[90:])["colour"] == text_only.TextOnly(100.0, 90)


def test_without_a_hint_the_most_frequent_answer_is_predicted():
    """If two thirds of the answers are "yes", the accuracy is two thirds."""
    rows = [data.Row(str(i), (), f"is it {i}", references=("yes" if i % 3 else "no",) * 10) for i in range(300)]
    assert text_only.accuracy(rows[:150], rows[150:])["all"].accuracy == pytest.approx(200 / 3)


def test_an_answer_is_the_label_or_the_most_frequent_reference():
    """A row without either has no answer."""
    rows = [
        data.Row("a", (), "words", 1),
        data.Row("b", (), "words", 0),
        data.Row("c", (), "words", references=("no", "yes", "yes")),
        data.Row("d", (), "words"),
    ]
    assert [text_only.answer(row) for row in rows] == ["true", "false", "yes", None]
