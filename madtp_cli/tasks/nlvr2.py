"""NLVR2: decide whether a sentence is true of two images."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

import torch
from torch import Tensor

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.tasks import TaskResult, _texts

#: Largest number of words of a sentence, as BLIP was trained.
MOST_WORDS = 40
#: Largest number of tokens: the positions of BLIP's text tower.
MOST_TOKENS = 512


def cleaned(sentence: str) -> str:
    """Return a sentence as BLIP was trained on it: lower case, without some characters, at most 40 words.

    >>> cleaned('Both images: a "Red" ring (two, or more)!')
    'both images a red ring two, or more'
    """
    return _texts.cleaned(sentence, MOST_WORDS)


class Nlvr2:
    """Decide whether a sentence is true of a pair of images."""

    name = "nlvr2"
    schema = "statements"
    title = "Natural-language visual reasoning (NLVR2)"
    pipeline_tag = "visual-question-answering"
    metric = "accuracy"
    unit = "percent"
    shares, relative = True, False
    generation_cost_description = ""

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return the inputs of a forward pass.

        Returns:
            pixel_values [batch, 2, 3, height, width], left image first; input_ids and attention_mask [batch, tokens],
            the first token is [ENC]; labels [batch] if every row has one.
        """
        images = pixel_values([image for row in rows for image in row.images], processor.image_processor)
        tokens = _tokens([row.text for row in rows], processor.tokenizer)
        batch = {"pixel_values": images.unflatten(0, (len(rows), 2)), **tokens}
        labels = [row.label for row in rows if row.label is not None]
        if len(labels) == len(rows):
            batch["labels"] = torch.tensor(labels)
        return batch

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of each sentence with [ENC] and [SEP]."""
        return {"text": _tokens([row.text for row in rows], processor.tokenizer)["attention_mask"].sum(1).tolist()}

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return 1 for each sample whose sentence the model takes for true, else 0."""
        answers: list[int] = output.logits.argmax(-1).tolist()
        return answers

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """Score 1 if the prediction equals the label, else 0."""
        labels = [row.label for row in rows]
        scores = [
            float(answer == label) for answer, label in zip(predictions, labels, strict=False) if label is not None
        ]
        return TaskResult(predictions, scores, len(predictions) - len(scores))

    def quality(self, scores: Sequence[float]) -> float:
        """Return the percentage of correct samples."""
        return 100 * fsum(scores) / len(scores)


def _tokens(sentences: Sequence[str], tokenizer: Any) -> dict[str, Tensor]:
    return _texts.tokens([cleaned(sentence) for sentence in sentences], tokenizer, "[ENC]", MOST_TOKENS)


TASK = Nlvr2()
