"""Visual question answering: answer a question about an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.models.blip.decoding import IGNORED
from madtp_cli.models.blip.vqa import RANKED
from madtp_cli.tasks import _texts
from madtp_cli.tasks._answer_list import VqaFromList
from madtp_cli.tasks._texts import TextKind, without_spaces
from madtp_cli.tasks._vqa_scoring import VqaScoring

#: Questions as BLIP was trained on them, and answers, which stay as they are.
QUESTION = TextKind("vqa question", without_spaces, first="[ENC]")
ANSWER = TextKind("vqa answer", first="[DEC]")


def most_frequent(references: Sequence[str]) -> str:
    """Return the most frequent answer, the first of several equally frequent ones; "" if there is none.

    >>> most_frequent(["red", "dark red", "dark red"]), most_frequent(["2", "two"]), most_frequent([])
    ('dark red', '2', '')
    """
    return Counter(references).most_common(1)[0][0] if references else ""


@dataclass(frozen=True)
class Vqa(VqaScoring):
    """Answer a question about an image.

    Attributes:
        processor: The model's processor.
        answers: The possible answers, if the data list them. Otherwise the model generates an answer.
        k_test: Answers with the most likely first tokens that are scored in full.
    """

    #: Code for the model card.
    example = (
        'inputs = processor(images=Image.open("image.png"), text="what color is the dog?", return_tensors="pt")\n'
        "print(processor.tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))"
    )

    processor: Any = None
    answers: tuple[str, ...] = ()
    k_test: int = RANKED

    @property
    def generation_cost_description(self) -> str:
        """How an answer is found."""
        if not self.answers:
            return "generating an answer by beam search, as many steps as the longest of its batch"
        in_full = min(self.k_test, len(self.answers))
        return f"ranking {len(self.answers):,} answers by their first tokens, the {in_full:,} most likely ones in full"

    def with_candidates(self, k_test: int) -> Vqa:
        """Return the task that scores `k_test` answers of a list in full."""
        return replace(self, k_test=k_test)

    def for_model(self, config: Any, processor: Any, answers: Sequence[str]) -> Vqa | VqaFromList:
        """Return the task with the processor of a model, and the answers to choose from, if there are any.

        A model that chooses from its own list of answers has another form of the task.
        """
        if own := getattr(config, "answers", None):
            return VqaFromList(tuple(own), QUESTION)
        return replace(self, processor=processor, answers=tuple(answers))

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return the inputs of a forward pass; the most frequent answer is teacher-forced.

        Returns:
            pixel_values [batch, 3, height, width]; input_ids and attention_mask [batch, tokens] of the questions, the
            first token is [ENC]; decoder_input_ids and decoder_attention_mask [batch, tokens] of the answers, the
            first token is [DEC], followed by [SEP] if there is no answer; labels [batch, tokens], the answers with
            -100 for padding, if every row has an answer.
        """
        questions, answers = _questions(rows, processor), _answers(rows, processor)
        batch = {
            "pixel_values": pixel_values([row.images[0] for row in rows], processor.image_processor),
            **questions,
            **{f"decoder_{name}": value for name, value in answers.items()},
        }
        if all(row.references for row in rows):
            batch["labels"] = answers["input_ids"].masked_fill(answers["attention_mask"] == 0, IGNORED)
        return batch

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of each question and of its teacher-forced answer, special tokens included."""
        texts = {"text": _questions(rows, processor), "decoder": _answers(rows, processor)}
        return {tower: tokens["attention_mask"].sum(1).tolist() for tower, tokens in texts.items()}

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return the questions and the teacher-forced answers; of no rows, the answers to choose from."""
        answers = [most_frequent(row.references) for row in rows] if rows else list(self.answers)
        return {QUESTION: [row.text for row in rows], ANSWER: answers}

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return the answer to each question as text."""
        if not self.answers:
            return _texts.texts(model.generate_from(output.memory, on_text_run=on_text_run), self.processor.tokenizer)
        encoded = {
            name: value.to(output.memory.data.device)
            for name, value in ANSWER.encode(self.answers, self.processor).items()
        }
        best = model.rank(output.memory, encoded["input_ids"], encoded["attention_mask"], self.k_test, on_text_run)
        return [self.answers[number] for number in best.tolist()]


def _questions(rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
    return QUESTION.encode([row.text for row in rows], processor)


def _answers(rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
    return ANSWER.encode([most_frequent(row.references) for row in rows], processor)


TASK = Vqa()
