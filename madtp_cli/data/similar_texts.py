"""An order of training rows in which rows with similar texts are neighbours, so that they share a batch.

Retrieval learns from the samples of one batch which texts do not belong to an image. In a batch of random samples
these texts are easy to tell apart, but the candidates that a search ranks are not.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from madtp_cli.data.dataset import Row

#: Rows of a group of similar texts.
GROUP = 4
#: Similar texts are looked for among this many random rows; the time and the memory grow with its square.
POOL = 2048
#: Candidates of a row; those that are in another group already are passed over.
CANDIDATES = 64


def grouped_order(rows: Sequence[Row], seed: str) -> list[int]:
    """Return the numbers of all rows in a random order of groups of rows with similar texts.

    The first row of a group is random. The others are the rows whose texts are most similar to its text and that are
    in no group yet. The similarity is the cosine of the TF-IDF vectors of words and of pairs of neighbouring words.

    Args:
        rows: The rows.
        seed: Use another one for each epoch.
    """
    rng = random.Random(f"groups/{seed}")
    order = rng.sample(range(len(rows)), len(rows))
    groups = []
    for start in range(0, len(order), POOL):
        pool = order[start : start + POOL]
        groups += [[pool[place] for place in group] for group in _groups([rows[number] for number in pool])]
    rng.shuffle(groups)
    return [number for group in groups for number in group]


def _groups(rows: Sequence[Row]) -> list[list[int]]:
    """Return groups of the numbers of rows, beginning with the first row."""
    similar, grouped, groups = _most_similar([row.text for row in rows]), set[int](), []
    for number, row in enumerate(rows):
        if number in grouped:
            continue
        others = [other for other in similar[number] if other not in grouped and not _belong(row, rows[other])]
        groups.append([number, *others[: GROUP - 1]])
        grouped.update(groups[-1])
    return groups


def _belong(row: Row, other: Row) -> bool:
    """Return whether the text of the other row also belongs to the image of this one, as far as the rows tell."""
    return row.text == other.text or row.images == other.images


def _most_similar(texts: Sequence[str]) -> list[list[int]]:
    """Return the numbers of the texts that are most similar to each text, the most similar first, without the text."""
    terms = [_terms(text) for text in texts]
    counts = Counter(term for of_text in terms for term in of_text)
    columns = {term: column for column, term in enumerate(term for term, count in counts.items() if count > 1)}
    vectors = np.zeros((len(texts), len(columns)), dtype=np.float32)
    for vector, of_text in zip(vectors, terms, strict=True):
        for term in of_text & columns.keys():
            vector[columns[term]] = math.log((1 + len(texts)) / counts[term])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    best = np.argsort(-similarity, axis=1, kind="stable")[:, : min(CANDIDATES, len(texts) - 1)]
    return [list(map(int, row)) for row in best]


def _terms(text: str) -> set[str]:
    """Return the words and the pairs of neighbouring words of a text."""
    words = re.findall(r"\w+", text.lower())
    return {*words, *map(" ".join, itertools.pairwise(words))}
