"""Visual question answering by a model that chooses from a fixed list of answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import image_inputs
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.metrics.vqa import normalised, soft_score
from madtp_cli.tasks._texts import TextKind
from madtp_cli.tasks._vqa_scoring import VqaScoring


@dataclass(frozen=True)
class VqaFromList(VqaScoring):
    """Answer a question about an image with one of the model's answers.

    Attributes:
        answers: The model's answers, in the order of its logits.
        question: The kind of the questions.
    """

    answers: tuple[str, ...]
    question: TextKind

    #: Code for the model card.
    example = (
        'inputs = processor(images=Image.open("image.png"), text="what color is the dog?", return_tensors="pt")\n'
        "print(model.config.answers[int(model(**inputs).logits.argmax())])"
    )
    generation_cost_description = ""

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return the inputs of a forward pass.

        Returns:
            pixel_values [batch, 3, height, width] and, if the processor pads images, pixel_mask; input_ids and
            attention_mask [batch, tokens]; labels [batch, answers], the score of each answer, if every row has one.
        """
        batch = image_inputs([row.images[0] for row in rows], processor.image_processor)
        batch |= self.question.encode([row.text for row in rows], processor)
        if all(row.references for row in rows):
            batch["labels"] = torch.stack([self._scores(row) for row in rows])
        return batch

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of each question, special tokens included."""
        return {"text": self.question.encode([row.text for row in rows], processor)["attention_mask"].sum(1).tolist()}

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return the questions."""
        return {self.question: [row.text for row in rows]}

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return the answer to each question as text."""
        return [self.answers[number] for number in output.logits.argmax(-1).tolist()]

    def _scores(self, row: Row) -> Tensor:
        """Return the score of each answer, [answers], 0 for those that no annotator gave."""
        scores = torch.zeros(len(self.answers))
        for given in {normalised(reference) for reference in row.references}:
            for number in self._numbers.get(given, ()):
                scores[number] = soft_score(self.answers[number], row.references)
        return scores

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """The numbers of the answers by their normalised form: annotators may write "two" for "2"."""
        numbers: dict[str, list[int]] = {}
        for number, answer in enumerate(self.answers):
            numbers.setdefault(normalised(answer), []).append(number)
        return numbers
