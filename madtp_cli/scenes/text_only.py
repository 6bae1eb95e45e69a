"""How far one gets without looking at the images: the check that a data set is not solved by its words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from madtp_cli.data.dataset import Row

#: Keeps the weights of rare words small.
_RIDGE = 1.0
#: Newton's method; five already agree to the last digit on 20,000 sentences.
_NEWTON_STEPS = 8

#: What is answered to a sentence.
_Judge = Callable[[str], str]


@dataclass(frozen=True)
class TextOnly:
    """Accuracy in percent on so many test sentences."""

    accuracy: float
    samples: int


def accuracy(train: Sequence[Row], test: Sequence[Row]) -> dict[str, TextOnly]:
    """Text-only accuracy over "all" and per kind of statement or question.

    Two ways are fitted on the train sentences, the commonest answer to each sentence and a
    logistic regression on its words; the one that does better on the test sentences counts,
    so a figure a little above one in so many answers as there are is chance.
    """
    sentences = _answers(train)
    judges = (_commonest(sentences), _regression(sentences))
    verdicts = {text: [judge(text) for judge in judges] for text in _answers(test)}
    right: dict[str, list[list[bool]]] = defaultdict(list)
    for row in test:
        truth = answer(row)
        if truth is not None:
            of_row = [verdict == truth for verdict in verdicts[row.text]]
            right["all"].append(of_row)
            right[row.kind or "other"].append(of_row)
    kinds = sorted(right, key=lambda kind: (kind != "all", kind))
    return {kind: TextOnly(100 * float(np.mean(right[kind], axis=0).max()), len(right[kind])) for kind in kinds}


def answer(row: Row) -> str | None:
    """A row's true answer: its label in words, or what most people answered; None if it has neither."""
    if row.label is not None:
        return ("false", "true")[row.label]
    return Counter(row.references).most_common(1)[0][0] if row.references else None


def _answers(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """How often each answer was given to each sentence; most sentences come many times."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        truth = answer(row)
        if truth is not None:
            answers[row.text][truth] += 1
    return answers


def _commonest(sentences: Mapping[str, Counter[str]]) -> _Judge:
    overall = sum(sentences.values(), Counter())

    def judge(text: str) -> str:
        given = sentences.get(text, overall)
        # Of equally common answers the first by the alphabet, whatever the order of the rows.
        return min(given, key=lambda said: (-given[said], said), default="")

    return judge


def _regression(sentences: Mapping[str, Counter[str]]) -> _Judge:
    """One logistic regression per answer on which words a sentence has; the likeliest answer is given."""
    words = {word: place for place, word in enumerate(sorted({w for text in sentences for w in text.split()}), 1)}

    def features(text: str) -> np.ndarray:
        found = np.zeros(len(words) + 1)
        found[[0, *(words[word] for word in text.split() if word in words)]] = 1
        return found

    seen = np.array([features(text) for text in sentences]).reshape(len(sentences), -1)
    times = np.array([given.total() for given in sentences.values()], float)
    choices = sorted({said for given in sentences.values() for said in given})
    weights = [_fitted(seen, times, np.array([given[said] for given in sentences.values()], float)) for said in choices]
    return lambda text: max(zip((features(text) @ w for w in weights), choices, strict=True), default=(0, ""))[1]


def _fitted(seen: np.ndarray, times: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Weights [words], by Newton's method, of sentences [sentences, words] that came and were so answered so often."""
    weights = np.zeros(seen.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-seen @ weights))
        curvature = seen.T @ (seen * (times * chance * (1 - chance))[:, None]) + _RIDGE * np.eye(len(weights))
        weights += np.linalg.solve(curvature, seen.T @ (given - times * chance) - _RIDGE * weights)
    return weights
