"""BLEU-4 and CIDEr-D of captions.

Papers report the figures of pycocoevalcap on the words of Stanford's PTBTokenizer, which needs Java. On the same words
the figures here are equal to those of pycocoevalcap (a test compares them). On raw captions they differ slightly,
because `tokens` splits some words differently. BLEU-4 is 0 to 1 and CIDEr-D 0 to 10; tables print 100 times as much.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from madtp_cli.errors import DataError

Ngrams = Counter[tuple[str, ...]]
Tokenise = Callable[[str], list[str]]

#: Both metrics use n-grams of one to four words.
LONGEST = 4
#: Width of CIDEr-D's penalty for a different length, in words.
SIGMA = 6.0
#: CIDEr-D's scale: a caption of four words or more that equals its only reference scores 10.
SCALE = 10.0

#: In this order: clitics (n't, 's), numbers, words with hyphens and similar characters inside, symbols such as $.
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
    """Return the words of a caption, in lower case and without punctuation.

    Plain captions are split as by the Penn Treebank rules: hyphens stay, clitics are separate words. Differences from
    PTBTokenizer: abbreviations lose their last dot, brackets are removed, "cannot" and "gonna" are one word.

    >>> tokens("A man's T-shirt, size 10.5; he doesn't mind!")
    ['a', 'man', "'s", 't-shirt', 'size', '10.5', 'he', 'does', "n't", 'mind']
    """
    return _TOKEN.findall(caption.lower().replace("\u2019", "'"))


def bleu4(candidates: Sequence[str], references: Sequence[Sequence[str]], tokenise: Tokenise | None = None) -> float:
    """Return the BLEU-4 of a corpus, 0 to 1, without smoothing.

    The reference length of a candidate is the closest one, and of two equally close lengths the shorter one.

    Args:
        candidates: One caption per sample.
        references: Each sample's captions, at least one.
        tokenise: Splits a caption into words; `tokens` by default.

    Raises:
        DataError: A sample has no reference.

    Source: Papineni et al., ACL 2002.

    >>> round(bleu4(["a red ring on a box"], [["a red ring on the box", "a ring"]]), 4)
    0.5373
    """
    matched, total = [0] * LONGEST, [0] * LONGEST
    length = reference_length = 0
    for candidate, alternatives in _split(candidates, references, tokenise):
        length += len(candidate)
        lengths = [len(words) for words in alternatives]
        reference_length += min(lengths, key=lambda size: (abs(size - len(candidate)), size))
        most: Ngrams = Counter()
        for words in alternatives:
            most |= _ngrams(words)
        for ngram, count in _ngrams(candidate).items():
            total[len(ngram) - 1] += count
            matched[len(ngram) - 1] += min(count, most[ngram])
    if not all(matched):
        return 0.0
    precision = math.fsum(math.log(right / count) for right, count in zip(matched, total, strict=True)) / LONGEST
    return math.exp(precision + min(0.0, 1 - reference_length / length))


def cider_d(
    candidates: Sequence[str], references: Sequence[Sequence[str]], tokenise: Tokenise | None = None
) -> list[float]:
    """Return the CIDEr-D of each sample, 0 to 10; the figure of the corpus is their mean.

    The weight of an n-gram, and so each score, depends on all references: figures of different sets of samples cannot
    be compared. A single sample scores 0. Arguments and errors are those of `bleu4`.

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
        documents.update({ngram for reference in alternatives for ngram in reference})
    vector = _Rarity(documents, len(samples)).vector
    scores = []
    for candidate, alternatives in samples:
        own = vector(candidate)
        scores.append(SCALE * math.fsum(_similarity(own, vector(other)) for other in alternatives) / len(alternatives))
    return scores


class _Vector(NamedTuple):
    """A caption as weighted n-grams; `norms` has one Euclidean norm for each n."""

    weights: dict[tuple[str, ...], float]
    norms: list[float]
    words: int


class _Rarity(NamedTuple):
    """The number of samples in whose references each n-gram occurs, and the number of all samples."""

    documents: Ngrams
    samples: int

    def vector(self, ngrams: Ngrams) -> _Vector:
        """Weight n-gram counts by the inverse document frequency; an n-gram without a reference counts as in one."""
        weights, squares = {}, [0.0] * LONGEST
        for ngram, count in ngrams.items():
            weights[ngram] = count * math.log(self.samples / max(1, self.documents[ngram]))
            squares[len(ngram) - 1] += weights[ngram] ** 2
        words = sum(count for ngram, count in ngrams.items() if len(ngram) == 1)
        return _Vector(weights, [math.sqrt(square) for square in squares], words)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """Return the mean cosine over n, with weights clipped to the reference's, times the length penalty."""
    products = [0.0] * LONGEST
    for ngram, weight in candidate.weights.items():
        other = reference.weights.get(ngram, 0.0)
        products[len(ngram) - 1] += min(weight, other) * other
    norms = (a * b for a, b in zip(candidate.norms, reference.norms, strict=True))
    cosine = math.fsum(product / norm for product, norm in zip(products, norms, strict=True) if norm) / LONGEST
    return cosine * math.exp(-((candidate.words - reference.words) ** 2) / (2 * SIGMA**2))


def _ngrams(words: Sequence[str]) -> Ngrams:
    """Return the n-grams of one to four words with their counts."""
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
