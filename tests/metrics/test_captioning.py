"""BLEU-4 and CIDEr-D against worked cases and against the published programs' figures."""

from __future__ import annotations

import math
import shutil
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.errors import DataError, UsageError
from madtp_cli.metrics.captioning import bleu4, cider_d, official, tokens

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
#: pycocoevalcap 1.2's Bleu(4) and Cider() on the first so many of these captions, split at spaces: {i: [candidate]} and
#: {i: references} given to compute_score.
PUBLISHED = {
    3: (0.5718697142, [4.3298331069, 1.6403935202, 1.5940106285]),
    4: (0.5962782603, [4.1690557371, 1.6434953879, 1.5347653408, 3.4661999890]),
    5: (0.5817177924, [4.1903041842, 1.6428900687, 1.5399323035, 3.5044410408, 0.0]),
}

WORDS = st.lists(st.sampled_from("abcd"), max_size=7).map(" ".join)
CORPORA = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3)), min_size=2, max_size=5)


@pytest.mark.parametrize("samples", PUBLISHED)
def test_the_figures_are_the_published_programs(samples):
    """On the same words our own metrics are those that papers quote."""
    bleu, cider = PUBLISHED[samples]
    candidates, references = CANDIDATES[:samples], REFERENCES[:samples]
    assert bleu4(candidates, references, str.split) == pytest.approx(bleu, abs=1e-8)
    assert cider_d(candidates, references, str.split) == pytest.approx(cider, abs=1e-8)


def test_bleu_is_the_closed_form():
    """Precisions 5/6, 3/5, 2/4 and 1/3: "a" counts once, as no single reference has it twice."""
    expected = (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4)
    assert bleu4(["a red ring on a box"], [["a red ring on the box", "a ring"]]) == pytest.approx(expected)


@pytest.mark.parametrize("lengths", [(4, 6), (6, 4)])
def test_of_two_equally_close_references_the_shorter_counts(lengths):
    """Five words against four and six: no penalty, whichever reference comes first."""
    references = [" ".join("abcdef"[:length]) for length in lengths]
    assert bleu4(["a b c d e"], [references]) == pytest.approx(1)
    assert bleu4(["a b c d e"], [["a b c d e f"]]) == pytest.approx(math.exp(1 - 6 / 5))


def test_bleu_counts_over_the_corpus():
    """Not a mean over captions: the lengths are summed before they are compared, and so are the matches."""
    assert bleu4(["a b c d", "e f g h i"], [["a b c d e"], ["f g h i"]]) == pytest.approx(
        ((8 / 9) * (6 / 7) * (4 / 5) * (2 / 3)) ** (1 / 4)
    )


def test_cider_is_the_closed_form():
    """Two words of the reference's four, all equally rare; the penalty is that of two words too few."""
    cosines = 2 / math.sqrt(2 * 4) + 1 / math.sqrt(1 * 3)
    (score, _) = cider_d(["x y", "b"], [["x y z w"], ["b"]])
    assert score == pytest.approx(10 * cosines / 4 * math.exp(-(2**2) / (2 * 6**2)))


def test_repeating_a_word_earns_nothing():
    """CIDEr-D clips; the product of plain tf-idf vectors would reward it."""
    (clipped, _) = cider_d(["x x x y", "b"], [["x y"], ["b"]])
    single = (1 + 1) / (math.sqrt(3**2 + 1) * math.sqrt(2)) + 1 / math.sqrt(1 + 2**2)
    assert clipped == pytest.approx(10 * single / 4 * math.exp(-(2**2) / 72))


def test_a_perfect_caption_has_the_highest_score():
    """The scale is 0 to 10 and 0 to 1."""
    references = [["a red ring on a box"], ["two dogs run in the park"]]
    candidates = [texts[0] for texts in references]
    assert cider_d(candidates, references) == pytest.approx([10, 10])
    assert bleu4(candidates, references) == pytest.approx(1)


def test_nothing_to_count_is_zero():
    """Early in training a model may say nothing at all; a single image makes no word rare."""
    assert bleu4(["", "a"], [["a b"], ["a b"]]) == 0
    assert cider_d(["", "a"], [["a b"], [""]]) == [0, 0]
    assert cider_d(["a b c d"], [["a b c d"]]) == [0]


@given(CORPORA)
def test_references_and_samples_have_no_order(corpus):
    """Also: no score leaves its range."""
    candidates, references = zip(*corpus, strict=True)
    scores, bleu = cider_d(candidates, references), bleu4(candidates, references)
    assert all(0 <= score <= 10 + 1e-9 for score in scores)
    assert 0 <= bleu <= 1
    turned = [list(reversed(texts)) for texts in references]
    assert cider_d(candidates[::-1], turned[::-1])[::-1] == pytest.approx(scores)
    assert bleu4(candidates[::-1], turned[::-1]) == pytest.approx(bleu)


@pytest.mark.parametrize(
    ("caption", "words"),
    # What PTBTokenizer of pycocoevalcap 1.2 makes of them.
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
def test_plain_captions_are_split_as_the_treebank_does(caption, words):
    """The closer the words, the closer our figures are to those of papers."""
    assert " ".join(tokens(caption)) == words


@pytest.mark.parametrize("metric", [bleu4, cider_d])
def test_a_sample_without_reference_is_refused(metric):
    """Its score would be a division by zero."""
    with pytest.raises(DataError, match="Sample 1 has no reference caption"):
        metric(["a", "b"], [["a"], []])


def test_captions_and_references_must_be_as_many():
    """Pairs that are cut short would be scored against the wrong number of images."""
    with pytest.raises(ValueError, match="shorter"):
        cider_d(["a", "b"], [["a"]])


def test_official_figures_without_their_program_say_what_to_install(monkeypatch):
    """The extra is optional: Java and a jar of Stanford's are not everybody's."""
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    with pytest.raises(UsageError, match=r"pip install 'madtp\[caption\]'"):
        official(CANDIDATES, REFERENCES)


def test_official_figures_without_java_say_so(monkeypatch, capsys):
    """pycocoevalcap starts Java itself, and fails with no word about it; what it prints must not reach stdout."""

    class PTBTokenizer:
        def tokenize(self, captions):
            sys.stdout.write("tokenization...")
            raise FileNotFoundError("[Errno 2] No such file or directory: 'java'")

    parts = {"bleu.bleu": "Bleu", "cider.cider": "Cider", "tokenizer.ptbtokenizer": "PTBTokenizer"}
    for path, name in parts.items():
        module = ModuleType(path)
        setattr(module, name, PTBTokenizer)
        folder = f"pycocoevalcap.{path.split('.')[0]}"
        for missing in ("pycocoevalcap", folder):
            monkeypatch.setitem(sys.modules, missing, ModuleType(missing))
        monkeypatch.setitem(sys.modules, f"pycocoevalcap.{path}", module)
    with pytest.raises(UsageError, match="'java'.\nInstall Java"):
        official(CANDIDATES, REFERENCES)
    assert capsys.readouterr().out == ""


def test_official_figures_are_ours_on_plain_captions(capsys):
    """With the extra installed; an empty caption or a line's end shifts nothing, and stdout stays clean."""
    pytest.importorskip("pycocoevalcap")
    if not shutil.which("java"):
        pytest.skip("PTBTokenizer needs Java")
    candidates, references = ["", "two\r\ndogs", *CANDIDATES], [["A dog.", "the dog"], ["two dogs"], *REFERENCES]
    figures = official(candidates, references)
    assert figures["BLEU-4"] == pytest.approx(bleu4(candidates, references), abs=1e-6)
    scores = cider_d(candidates, references)
    assert figures["CIDEr-D"] == pytest.approx(sum(scores) / len(scores), abs=1e-6)
    assert capsys.readouterr().out == ""
