"""Training rows whose captions change from epoch to epoch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.data import Row
from madtp_cli.data.caption_sampling import SampledCaptions
from madtp_cli.scenes import splits

CAPTIONS = tuple(f"caption {number}" for number in range(5))
#: The numbers of the first captions of ten rows, for seed 0.
RECORDED = "4000432201"
ROWS = [Row(str(number), (), CAPTIONS[0], references=CAPTIONS) for number in range(40)]


@given(seed=st.integers(0, 2**32), number=st.integers(0, 39), first=st.integers(0, 20))
def test_every_caption_is_used_once_before_any_is_used_again(seed, number, first) -> None:
    """A fine-tuning of few epochs should use as many different captions as possible."""
    texts = [SampledCaptions(ROWS, seed, epoch)[number].text for epoch in range(first, first + len(CAPTIONS))]
    assert sorted(texts) == sorted(CAPTIONS)
    assert texts[0] == SampledCaptions(ROWS, seed, first + len(CAPTIONS))[number].text


def test_captions_depend_on_seed_and_row_only() -> None:
    """A run can be repeated; other seeds and other images have other captions."""
    texts = [row.text for row in SampledCaptions(ROWS, 0, 0)]
    assert (
        texts
        == [row.text for row in SampledCaptions(ROWS, 0, 0)[:]]
        == [SampledCaptions(ROWS, 0, 0)[i].text for i in range(40)]
    )
    assert texts != [row.text for row in SampledCaptions(ROWS, 1, 0)]
    assert set(texts) == set(CAPTIONS)
    assert [row.text for row in SampledCaptions(ROWS[:9], 0, 0)] == texts[:9]
    assert SampledCaptions(ROWS, 0, 0)[-1].text == texts[-1]


def test_only_the_text_of_a_row_changes() -> None:
    """The references are needed for scoring."""
    row = SampledCaptions(ROWS, 3, 1)[7]
    assert (row.identifier, row.references) == ("7", CAPTIONS)


def test_questions_and_statements_do_not_change() -> None:
    """Their references are answers, or they have no references."""
    rows = [Row("a", (), "what is this", references=("red", "a ring")), Row("b", (), "there is a ring", label=1)]
    assert list(SampledCaptions(rows, 0, 5)) == rows


def test_lazy_rows_stay_lazy() -> None:
    """Ten million scenes must not be generated at once."""
    rows = SampledCaptions(splits.rows("caption", "train", 10**7), 0, 0)
    assert len(rows) == 10**7
    assert rows[9_999_999].text in rows[9_999_999].references


def test_the_chosen_captions_never_change() -> None:
    """Released checkpoints were trained with them, so the first ones are recorded here."""
    texts = [row.text[-1] for row in SampledCaptions(ROWS, 0, 0)[:10]]
    assert "".join(texts) == RECORDED
