"""What is known from the words alone is found out; what is not is not claimed."""

from __future__ import annotations

import pytest

from madtp_cli import data
from madtp_cli.scenes import text_only


def test_words_that_tell_are_found_out():
    """A check that always says "chance" would guard nothing."""
    rows = [data.Row(str(i), (), f"the {'red' if i % 3 else 'blue'} one {i}", int(i % 3 > 0)) for i in range(300)]
    assert text_only.accuracy(rows[:200], rows[200:])["all"] == text_only.TextOnly(100.0, 100)


def test_answers_that_words_tell_are_found_out():
    """Also one of three, and also where no whole question was met in training."""
    colours = {"sky": "blue", "grass": "green", "blood": "red"}
    rows = [
        data.Row(str(i), (), f"what colour is the {noun} {i}", kind="colour", references=(answer,) * 10)
        for i in range(60)
        for noun, answer in colours.items()
    ]
    assert text_only.accuracy(rows[:90], rows[90:])["colour"] == text_only.TextOnly(100.0, 90)


def test_the_commonest_answer_is_what_is_left_without_a_clue():
    """Two thirds "no" are two thirds right, however the question is put."""
    rows = [data.Row(str(i), (), f"is it {i}", references=("yes" if i % 3 else "no",) * 10) for i in range(300)]
    assert text_only.accuracy(rows[:150], rows[150:])["all"].accuracy == pytest.approx(200 / 3)


def test_an_answer_is_the_label_or_what_most_people_said():
    """One row without either has nothing to judge by."""
    rows = [
        data.Row("a", (), "words", 1),
        data.Row("b", (), "words", 0),
        data.Row("c", (), "words", references=("no", "yes", "yes")),
        data.Row("d", (), "words"),
    ]
    assert [text_only.answer(row) for row in rows] == ["true", "false", "yes", None]
