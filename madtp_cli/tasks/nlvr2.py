"""NLVR2: decide whether a sentence is true of two images."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

import torch
from torch import Tensor

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import image_inputs
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.tasks import TaskResult
from madtp_cli.tasks._texts import TextKind, with_spaces

#: Statements as BLIP was trained on them.
STATEMENT = TextKind("nlvr2", with_spaces, first="[ENC]")


class Nlvr2:
    """Decide whether a sentence is true of a pair of images."""

    name = "nlvr2"
    schema = "statements"
    title = "Natural-language visual reasoning (NLVR2)"
    #: Code for the model card.
    example = (
        'left, right = Image.open("left.png"), Image.open("right.png")\n'
        'inputs = processor(images=[left, right], text="both images contain a dog", return_tensors="pt")\n'
        'print("true" if model(**inputs).logits.argmax() == 1 else "false")'
    )
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
        images = image_inputs([image for row in rows for image in row.images], processor.image_processor)
        tokens = STATEMENT.encode([row.text for row in rows], processor)
        batch = {name: values.unflatten(0, (len(rows), 2)) for name, values in images.items()} | tokens
        labels = [row.label for row in rows if row.label is not None]
        if len(labels) == len(rows):
            batch["labels"] = torch.tensor(labels)
        return batch

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of each sentence with [ENC] and [SEP]."""
        tokens = STATEMENT.encode([row.text for row in rows], processor)
        return {"text": tokens["attention_mask"].sum(1).tolist()}

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return the statements."""
        return {STATEMENT: [row.text for row in rows]}

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

    def describe(self, prediction: Any, texts: Sequence[str]) -> str:
        """Return "true" or "false"."""
        return "true" if prediction else "false"

    def quality(self, scores: Sequence[float]) -> float:
        """Return the percentage of correct samples."""
        return 100 * fsum(scores) / len(scores)


TASK = Nlvr2()
