"""BLEU-4 and CIDEr-D, our own, on words as we split them; `official` gives the published programs' figures.

Papers quote pycocoevalcap after Stanford's PTBTokenizer, which needs Java. On the same words the
figures here are pycocoevalcap's; on raw captions they differ a little, because the words do.
BLEU-4 is 0 to 1 and CIDEr-D 0 to 10 as in their papers; tables print 100 times as much.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from madtp_cli.errors import DataError, UsageError

Ngrams = Counter[tuple[str, ...]]
Tokenise = Callable[[str], list[str]]

#: Both metrics look at one to four words in a row.
LONGEST = 4
#: CIDEr-D's penalty for a wrong length, in words.
SIGMA = 6.0
#: CIDEr-D's scale: a caption of four words or more that equals its only reference scores 10.
SCALE = 10.0

#: Clitics and what only looks like one; numbers; words with what stands inside them; symbols that are read aloud.
_TOKEN = re.compile(
    r"""
      \w+?(?=n't\b) | n't\b | (?<=\w)'(?:s|m|d|re|ve|ll)\b | o'\w+
    | \d+(?:[.,:/]\d+)*(?:-?\w+)*
    | \w+(?:[-./&]\w+)*
    | [$%&#@+=*]
    """,
    re.VERBOSE,
)


def tokens(caption: str) -> list[str]:
    """The words of a caption, lower case and without punctuation.

    Like the Penn Treebank's for plain captions: hyphens stay, clitics are words of their own.
    Unlike PTBTokenizer's, abbreviations lose their last dot, brackets vanish, and "cannot" and
    "gonna" stay whole.

    >>> tokens("A man's T-shirt, size 10.5; he doesn't mind!")
    ['a', 'man', "'s", 't-shirt', 'size', '10.5', 'he', 'does', "n't", 'mind']
    """
    return _TOKEN.findall(caption.lower().replace("\u2019", "'"))


def bleu4(candidates: Sequence[str], references: Sequence[Sequence[str]], tokenise: Tokenise | None = None) -> float:
    """BLEU-4 of a corpus, 0 to 1, without smoothing.

    Each candidate's reference length is the closest one, of two equally close the shorter.

    Args:
        candidates: One caption per sample.
        references: Each sample's captions, at least one.
        tokenise: Splits a caption into words; `tokens` unless given.

    Raises:
        DataError: A sample has no reference.

    Source: Papineni et al., ACL 2002.

    >>> round(bleu4(["a red ring on a box"], [["a red ring on the box", "a ring"]]), 4)
    0.5373
    """
    matched, made = [0] * LONGEST, [0] * LONGEST
    length = wanted = 0
    for candidate, alternatives in _split(candidates, references, tokenise):
        length += len(candidate)
        wanted += min((len(words) for words in alternatives), key=lambda size: (abs(size - len(candidate)), size))
        most: Ngrams = Counter()
        for words in alternatives:
            most |= _ngrams(words)
        for ngram, count in _ngrams(candidate).items():
            made[len(ngram) - 1] += count
            matched[len(ngram) - 1] += min(count, most[ngram])
    if not all(matched):
        return 0.0
    precision = math.fsum(math.log(right / total) for right, total in zip(matched, made, strict=True)) / LONGEST
    return math.exp(precision + min(0.0, 1 - wanted / length))


def cider_d(
    candidates: Sequence[str], references: Sequence[Sequence[str]], tokenise: Tokenise | None = None
) -> list[float]:
    """CIDEr-D of each sample, 0 to 10; the mean is the corpus' figure.

    How rare an n-gram is, and so every score, depends on all references given: figures of
    different samples, or of fewer of them, cannot be compared. A single sample scores 0.

    Args and errors are those of `bleu4`.

    Source: Vedantam et al., CVPR 2015 (arXiv:1411.5726), section 5.

    >>> [round(score, 3) for score in cider_d(["a red ring", "a box"], [["a red ring"], ["a big box", "a dog"]])]
    [7.5, 0.872]
    """
    samples = [
        (_ngrams(candidate), [_ngrams(words) for words in alternatives])
        for candidate, alternatives in _split(candidates, references, tokenise)
    ]
    documents: Ngrams = Counter()
    for _, alternatives in samples:
        documents.update({ngram for wanted in alternatives for ngram in wanted})
    vector = _Rarity(documents, len(samples)).vector
    scores = []
    for candidate, alternatives in samples:
        made = vector(candidate)
        scores.append(SCALE * math.fsum(_alike(made, vector(wanted)) for wanted in alternatives) / len(alternatives))
    return scores


def official(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """The published programs' "BLEU-4" and "CIDEr-D" of a corpus: pycocoevalcap on PTBTokenizer's words.

    Raises:
        UsageError: pycocoevalcap or Java is missing or does not run.
        DataError: A sample has no reference.
    """
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError as error:
        raise UsageError(
            f"The official caption metrics need pycocoevalcap and Java ({error}).\n"
            "Install the first with: pip install 'madtp[caption]'"
        ) from error
    pairs = list(_paired(candidates, references))
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # they print as they go
            made = PTBTokenizer().tokenize({i: [_line(candidate)] for i, (candidate, _) in enumerate(pairs)})
            wanted = PTBTokenizer().tokenize({i: [_line(text) for text in texts] for i, (_, texts) in enumerate(pairs)})
            bleus, _ = Bleu(LONGEST).compute_score(wanted, made)
            cider, _ = Cider().compute_score(wanted, made)
    except OSError as error:
        raise UsageError(
            f"PTBTokenizer, which the official caption metrics need, does not run: {error}.\n"
            "Install Java, and make pycocoevalcap's folder writable."
        ) from error
    return {"BLEU-4": float(bleus[-1]), "CIDEr-D": float(cider)}


class _Vector(NamedTuple):
    """A caption as weighted n-grams; `norms` holds one Euclidean norm for each n."""

    weights: dict[tuple[str, ...], float]
    norms: list[float]
    words: int


class _Rarity(NamedTuple):
    """In how many of so many samples' references each n-gram occurs."""

    documents: Ngrams
    samples: int

    def vector(self, ngrams: Ngrams) -> _Vector:
        """Counts times the logarithm of their rarity; an n-gram no reference has is as rare as can be."""
        weights, squares = {}, [0.0] * LONGEST
        for ngram, count in ngrams.items():
            weights[ngram] = count * math.log(self.samples / max(1, self.documents[ngram]))
            squares[len(ngram) - 1] += weights[ngram] ** 2
        words = sum(count for ngram, count in ngrams.items() if len(ngram) == 1)
        return _Vector(weights, [math.sqrt(square) for square in squares], words)


def _alike(candidate: _Vector, reference: _Vector) -> float:
    """Mean over n of the cosines, the candidate's weights clipped to the reference's, times the length's penalty."""
    products = [0.0] * LONGEST
    for ngram, weight in candidate.weights.items():
        wanted = reference.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += min(weight, wanted) * wanted
    norms = (a * b for a, b in zip(candidate.norms, reference.norms, strict=True))
    cosine = math.fsum(product / norm for product, norm in zip(products, norms, strict=True) if norm) / LONGEST
    return cosine * math.exp(-((candidate.words - reference.words) ** 2) / (2 * SIGMA**2))


def _ngrams(words: Sequence[str]) -> Ngrams:
    """All one to four words in a row, each with its count."""
    return Counter(tuple(words[at : at + n]) for n in range(1, LONGEST + 1) for at in range(len(words) - n + 1))


def _paired(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    for number, (candidate, texts) in enumerate(zip(candidates, references, strict=True)):
        if not texts:
            raise DataError(f"Sample {number} has no reference caption.\nGive every image at least one.")
        yield candidate, texts


def _split(
    candidates: Sequence[str], references: Sequence[Sequence[str]], tokenise: Tokenise | None
) -> Iterator[tuple[list[str], list[list[str]]]]:
    words = tokenise or tokens
    for candidate, texts in _paired(candidates, references):
        yield words(candidate), [words(text) for text in texts]


def _line(caption: str) -> dict[str, str]:
    """A caption as PTBTokenizer takes it: on one line, whatever ends a line."""
    return {"caption": " ".join(caption.split())}
