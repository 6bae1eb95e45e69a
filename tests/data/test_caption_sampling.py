"""Training rows whose captions change from pass to pass."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.data import Row
from madtp_cli.data.caption_sampling import Retold
from madtp_cli.scenes import splits

SAID = tuple(f"caption {number}" for number in range(5))
ROWS = [Row(str(number), (), SAID[0], references=SAID) for number in range(40)]


@given(seed=st.integers(0, 2**32), number=st.integers(0, 39), first=st.integers(0, 20))
def test_every_caption_comes_once_before_one_comes_again(seed, number, first) -> None:
    """A fine-tune of few passes should not meet the same caption twice."""
    told = [Retold(ROWS, seed, epoch)[number].text for epoch in range(first, first + len(SAID))]
    assert sorted(told) == sorted(SAID)
    assert told[0] == Retold(ROWS, seed, first + len(SAID))[number].text


def test_seed_and_row_decide_and_nothing_else() -> None:
    """A run repeats; other seeds and other images take other captions."""
    told = [row.text for row in Retold(ROWS, 0, 0)]
    assert told == [row.text for row in Retold(ROWS, 0, 0)[:]] == [Retold(ROWS, 0, 0)[i].text for i in range(40)]
    assert told != [row.text for row in Retold(ROWS, 1, 0)]
    assert set(told) == set(SAID)
    assert [row.text for row in Retold(ROWS[:9], 0, 0)] == told[:9]
    assert Retold(ROWS, 0, 0)[-1].text == told[-1]


def test_rows_change_in_nothing_but_their_text() -> None:
    """References are what a caption is scored by; labels number the images."""
    row = Retold(ROWS, 3, 1)[7]
    assert (row.identifier, row.references) == ("7", SAID)


def test_questions_and_statements_stay() -> None:
    """Their references are answers, or there are none."""
    rows = [Row("a", (), "what is this", references=("red", "a ring")), Row("b", (), "there is a ring", label=1)]
    assert list(Retold(rows, 0, 5)) == rows


def test_lazy_rows_stay_lazy() -> None:
    """Ten million scenes are a stream, not a list."""
    rows = Retold(splits.rows("caption", "train", 10**7), 0, 0)
    assert len(rows) == 10**7
    assert rows[9_999_999].text in rows[9_999_999].references
