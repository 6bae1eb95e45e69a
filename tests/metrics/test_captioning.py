"""BLEU-4 and CIDEr-D equal figures computed by hand and those of pycocoevalcap."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.errors import DataError
from madtp_cli.metrics.captioning import bleu4, cider_d, tokens

CANDIDATES = [
    "a red ring lies on the box",
    "two dogs run run run in a park",
    "a man",
    "the small blue ring is left of a big red ring on a table",
    "two birds",
]
REFERENCES = [
    ["a red ring on a box", "the red ring lies on the box", "a ring"],
    ["two dogs run in the park", "dogs are running"],
    ["a man rides a wave on a board", "a surfer on a wave", "man surfing", "the man rides", "a man on a wave"],
    ["a small ring left of a big red ring", "the blue ring is left of the red ring"],
    ["a cat on a table"],
]
#: Results of Bleu(4) and Cider() of pycocoevalcap 1.2 for the first 3, 4 and 5 of these captions, split at spaces; the
#: arguments of compute_score were {i: [candidate]} and {i: references}.
PUBLISHED = {
    3: (0.5718697142, [4.3298331069, 1.6403935202, 1.5940106285]),
    4: (0.5962782603, [4.1690557371, 1.6434953879, 1.5347653408, 3.4661999890]),
    5: (0.5817177924, [4.1903041842, 1.6428900687, 1.5399323035, 3.5044410408, 0.0]),
}

WORDS = st.lists(st.sampled_from("abcd"), max_size=7).map(" ".join)
CORPORA = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=2, max_size=5)


@pytest.mark.parametrize("samples", PUBLISHED)
def test_the_figures_are_those_of_pycocoevalcap(samples):
    """Papers report the figures of pycocoevalcap; on the same words ours are equal."""
    bleu, cider = PUBLISHED[samples]
    candidates, references = CANDIDATES[:samples], REFERENCES[:samples]
    assert bleu4(candidates, references, str.split) == pytest.approx(bleu, abs=1e-8)
    assert cider_d(candidates, references, str.split) == pytest.approx(cider, abs=1e-8)


def test_bleu_is_the_closed_form():
    """The precisions are 5/6, 3/5, 2/4 and 1/3: "a" counts once, because no reference has it twice."""
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert bleu4(["a red ring on a box"], [["a red ring on the box", "a ring"]]) == pytest.approx(expected)


@pytest.mark.parametrize("lengths", [(4, 6), (6, 4)])
def test_of_two_equally_close_references_the_shorter_counts(lengths):
    """Five words, references of four and six: no penalty in either order of the references."""
    references = [" ".join("abcdef"[:length]) for length in lengths]
    assert bleu4(["a b c d e"], [references]) == pytest.approx(1)
    assert bleu4(["a b c d e"], [["a b c d e f"]]) == pytest.approx(math.exp(1 - 6 / 5))


def test_bleu_counts_over_the_corpus():
    """It is no mean over captions: lengths and matches are summed over the corpus."""
    assert bleu4(["a b c d", "e f g h i"], [["a b c d e"], ["f g h i"]]) == pytest.approx(
        ((8 / 9) * (6 / 7) * (4 / 5) * (2 / 3)) ** (1 / 4)
    )


def test_cider_is_the_closed_form():
    """Two of the reference's four words, all equally rare, with the length penalty of two missing words."""
    cosines = 2 / math.sqrt(2 * 4) + 1 / math.sqrt(1 * 3)
    (score, _) = cider_d(["x y", "b"], [["x y z w"], ["b"]])
    assert score == pytest.approx(10 * cosines / 4 * math.exp(-(2**2) / (2 * 6**2)))


def test_repeated_words_do_not_raise_the_score():
    """CIDEr-D clips counts; plain tf-idf vectors would give a higher score."""
    (clipped, _) = cider_d(["x x x y", "b"], [["x y"], ["b"]])
    single = (1 + 1) / (math.sqrt(3**2 + 1) * math.sqrt(2)) + 1 / math.sqrt(1 + 2**2)
    assert clipped == pytest.approx(10 * single / 4 * math.exp(-(2**2) / 72))


def test_a_perfect_caption_has_the_highest_score():
    """CIDEr-D has a maximum of 10, BLEU-4 of 1."""
    references = [["a red ring on a box"], ["two dogs run in the park"]]
    candidates = [texts[0] for texts in references]
    assert cider_d(candidates, references) == pytest.approx([10, 10])
    assert bleu4(candidates, references) == pytest.approx(1)


def test_empty_captions_score_zero():
    """A model may generate an empty caption early in training. With a single image no word is rare."""
    assert bleu4(["", "a"], [["a b"], ["a b"]]) == 0
    assert cider_d(["", "a"], [["a b"], [""]]) == [0, 0]
    assert cider_d(["a b c d"], [["a b c d"]]) == [0]


@given(CORPORA)
def test_the_order_of_references_and_samples_does_not_matter(corpus):
    """Scores also stay within their range."""
    candidates, references = zip(*corpus, strict=True)
    scores, bleu = cider_d(candidates, references), bleu4(candidates, references)
    assert all(0 <= score <= 10 + 1e-9 for score in scores)
    assert 0 <= bleu <= 1
    turned = [list(reversed(texts)) for texts in references]
    assert cider_d(candidates[::-1], turned[::-1])[::-1] == pytest.approx(scores)
    assert bleu4(candidates[::-1], turned[::-1]) == pytest.approx(bleu)


@pytest.mark.parametrize(
    ("caption", "words"),
    # The output of PTBTokenizer of pycocoevalcap 1.2.
    [
        ("A man riding a wave on top of a surfboard.", "a man riding a wave on top of a surfboard"),
        ("Two dogs -- one black, one white -- are playing!", "two dogs one black one white are playing"),
        ("The woman's T-shirt doesn't fit; they've 2 others.", "the woman 's t-shirt does n't fit they 've 2 others"),
        ('A sign that says "STOP" at 2:50 on 5th street', "a sign that says stop at 2:50 on 5th street"),
        ("Kids' toys cost $5, and it's 5 o'clock: 50% off", "kids toys cost $ 5 and it 's 5 o'clock 50 % off"),
        (
            "A half-eaten, black-and-white cake with 1,000 candles...",
            "a half-eaten black-and-white cake with 1,000 candles",
        ),
        ("The woman\u2019s T-shirt doesn\u2019t fit", "the woman 's t-shirt does n't fit"),
    ],
)
def test_plain_captions_are_split_as_by_the_treebank(caption, words):
    """The words decide how close our figures are to those of papers."""
    assert " ".join(tokens(caption)) == words


@pytest.mark.parametrize("metric", [bleu4, cider_d])
def test_a_sample_without_reference_is_refused(metric):
    """Its score would be a division by zero."""
    with pytest.raises(DataError, match="Sample 1 has no reference caption"):
        metric(["a", "b"], [["a"], []])


def test_each_caption_needs_references():
    """Lists of different lengths do not belong together."""
    with pytest.raises(ValueError, match="shorter"):
        cider_d(["a", "b"], [["a"]])
