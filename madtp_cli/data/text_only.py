"""How far one gets without looking at the images: the check that a data set is not solved by its words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from madtp_cli.data.rows import Row

#: Keeps the weights of rare words small.
_RIDGE = 1.0
#: Newton's method; five already agree to the last digit on 20,000 sentences.
_NEWTON_STEPS = 8

#: Probability that a sentence is true.
_Judge = Callable[[str], float]


@dataclass(frozen=True)
class TextOnly:
    """Accuracy in percent on so many test sentences."""

    accuracy: float
    samples: int


def accuracy(train: Sequence[Row], test: Sequence[Row]) -> dict[str, TextOnly]:
    """Text-only accuracy over "all" and per kind of statement.

    Two ways are fitted on the train sentences, the majority label of each sentence and a
    logistic regression on its words; the one that does better on the test sentences counts,
    so a figure a little above 50 is chance.
    """
    sentences = _labels(train)
    judges = (_majority(sentences), _regression(sentences))
    verdicts = {text: [judge(text) > 0.5 for judge in judges] for text in _labels(test)}
    right: dict[str, list[list[bool]]] = defaultdict(list)
    for row in test:
        if row.label is not None:
            of_row = [verdict == bool(row.label) for verdict in verdicts[row.text]]
            right["all"].append(of_row)
            right[row.kind or "other"].append(of_row)
    kinds = sorted(right, key=lambda kind: (kind != "all", kind))
    return {kind: TextOnly(100 * float(np.mean(right[kind], axis=0).max()), len(right[kind])) for kind in kinds}


def _labels(rows: Sequence[Row]) -> dict[str, list[int]]:
    """The labels of each sentence; most sentences come many times."""
    labels: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row.label is not None:
            labels[row.text].append(row.label)
    return labels


def _majority(sentences: Mapping[str, list[int]]) -> _Judge:
    shares = {text: float(np.mean(labels)) for text, labels in sentences.items()}
    overall = float(np.mean([label for labels in sentences.values() for label in labels] or [0]))
    return lambda text: shares.get(text, overall)


def _regression(sentences: Mapping[str, list[int]]) -> _Judge:
    words = {word: place for place, word in enumerate(sorted({w for text in sentences for w in text.split()}), 1)}

    def features(text: str) -> np.ndarray:
        found = np.zeros(len(words) + 1)
        found[[0, *(words[word] for word in text.split() if word in words)]] = 1
        return found

    seen = np.array([features(text) for text in sentences]).reshape(len(sentences), -1)
    times, true = (np.array([count(labels) for labels in sentences.values()], float) for count in (len, sum))
    weights = np.zeros(len(words) + 1)
    for _ in range(_NEWTON_STEPS if sentences else 0):
        chance = 1 / (1 + np.exp(-seen @ weights))
        curvature = seen.T @ (seen * (times * chance * (1 - chance))[:, None]) + _RIDGE * np.eye(len(weights))
        weights += np.linalg.solve(curvature, seen.T @ (true - times * chance) - _RIDGE * weights)
    return lambda text: float(1 / (1 + np.exp(-features(text) @ weights)))
