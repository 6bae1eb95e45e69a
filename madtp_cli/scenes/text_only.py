"""Accuracy without the images: shows whether the texts of a data set alone give the answers away."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from madtp_cli.data.dataset import Row

#: L2 penalty of the logistic regression; keeps the weights of rare words small.
_PENALTY = 1.0
#: Steps of Newton's method; after five, all digits are stable on 20,000 sentences.
_NEWTON_STEPS = 8

#: Predicts the answer for a text.
_Predictor = Callable[[str], str]


@dataclass(frozen=True)
class TextOnly:
    """Accuracy in percent, and the number of test samples."""

    accuracy: float
    samples: int


def accuracy(train: Sequence[Row], test: Sequence[Row]) -> dict[str, TextOnly]:
    """Return the text-only accuracy over all rows ("all") and for each kind of statement or question.

    Two predictors are fitted on the train rows: the most frequent answer for each text, and a logistic regression on
    its words. The better one on the test rows counts, so an accuracy slightly above chance is still chance.

    Args:
        train: Rows to fit on.
        test: Rows to score.
    """
    answers_by_text = _answers_by_text(train)
    predictors = (_most_frequent_answer(answers_by_text), _regression(answers_by_text))
    predictions = {text: [predict(text) for predict in predictors] for text in _answers_by_text(test)}
    correct: dict[str, list[list[bool]]] = defaultdict(list)
    for row in test:
        expected = answer(row)
        if expected is not None:
            of_row = [prediction == expected for prediction in predictions[row.text]]
            correct["all"].append(of_row)
            correct[row.kind or "other"].append(of_row)
    kinds = sorted(correct, key=lambda kind: (kind != "all", kind))
    return {kind: TextOnly(100 * float(np.mean(correct[kind], axis=0).max()), len(correct[kind])) for kind in kinds}


def answer(row: Row) -> str | None:
    """Return the right answer of a row: its label as a word, or the most frequent reference; None without either."""
    if row.label is not None:
        return ("false", "true")[row.label]
    return Counter(row.references).most_common(1)[0][0] if row.references else None


def _answers_by_text(rows: Sequence[Row]) -> dict[str, Counter[str]]:
    """How often each text has each answer; most texts occur many times."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        expected = answer(row)
        if expected is not None:
            answers[row.text][expected] += 1
    return answers


def _most_frequent_answer(answers_by_text: Mapping[str, Counter[str]]) -> _Predictor:
    overall = sum(answers_by_text.values(), Counter())

    def predict(text: str) -> str:
        counts = answers_by_text.get(text, overall)
        # Of equally frequent answers, the first in alphabetical order, so that the order of the rows does not matter.
        return min(counts, key=lambda candidate: (-counts[candidate], candidate), default="")

    return predict


def _regression(answers_by_text: Mapping[str, Counter[str]]) -> _Predictor:
    """Predict with one logistic regression per answer, on which words a text contains; the likeliest answer wins."""
    words = sorted({word for text in answers_by_text for word in text.split()})
    column = {word: number for number, word in enumerate(words, 1)}

    def features(text: str) -> np.ndarray:
        present = np.zeros(len(words) + 1)
        present[[0, *(column[word] for word in text.split() if word in column)]] = 1  # column 0 is the bias
        return present

    inputs = np.array([features(text) for text in answers_by_text]).reshape(len(answers_by_text), -1)
    occurrences = np.array([counts.total() for counts in answers_by_text.values()], float)
    answers = sorted({candidate for counts in answers_by_text.values() for candidate in counts})
    weights = []
    for candidate in answers:
        positives = np.array([counts[candidate] for counts in answers_by_text.values()], float)
        weights.append(_fit(inputs, occurrences, positives))
    return lambda text: max(zip((features(text) @ w for w in weights), answers, strict=True), default=(0, ""))[1]


def _fit(inputs: np.ndarray, occurrences: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Fit a logistic regression by Newton's method.

    Args:
        inputs: Features of each text, [texts, features].
        occurrences: How often each text occurs, [texts].
        positives: How often each text has the answer, [texts].

    Returns:
        Weights [features].
    """
    weights = np.zeros(inputs.shape[1])
    for _ in range(_NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-inputs @ weights))
        variance = occurrences * probability * (1 - probability)
        curvature = inputs.T @ (inputs * variance[:, None]) + _PENALTY * np.eye(len(weights))
        weights += np.linalg.solve(curvature, inputs.T @ (positives - occurrences * probability) - _PENALTY * weights)
    return weights
