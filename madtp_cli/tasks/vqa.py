"""Visual question answering: what is the answer to this question about this image?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from torch import Tensor

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.metrics.vqa import soft_score
from madtp_cli.models.blip.decoding import IGNORED
from madtp_cli.models.blip.vqa import RANKED
from madtp_cli.tasks import TaskResult, _texts

#: BLIP reads at most so many words of a question, and so many tokens, the first and the last among them.
MOST_WORDS, QUESTION_TOKENS = 50, 35
#: Of an answer as many as BLIP has positions.
ANSWER_TOKENS = 512


def cleaned(question: str) -> str:
    """A question as BLIP was trained on it: lower case, without some marks, 50 words.

    >>> cleaned('What is "this" (the red ring)?')
    'what is this the red ring?'
    """
    return " ".join(_texts.DROPPED.sub("", question.lower()).split()[:MOST_WORDS])


def commonest(references: Sequence[str]) -> str:
    """The answer that most people gave, of several the one that came first; nothing if nobody answered.

    >>> commonest(["red", "dark red", "dark red"]), commonest(["2", "two"]), commonest([])
    ('dark red', '2', '')
    """
    return Counter(references).most_common(1)[0][0] if references else ""


@dataclass(frozen=True)
class Vqa:
    """An image and a question, answered in words.

    Where the data list all `answers`, the model chooses among the `k_test` with the likeliest first words;
    otherwise it writes one.
    """

    name = "vqa"
    schema = "questions"
    title = "Visual question answering (VQAv2)"
    pipeline_tag = "visual-question-answering"
    metric = "VQA accuracy"
    unit = "percent"
    shares, relative = True, False

    tokenizer: Any = None
    answers: tuple[str, ...] = ()
    k_test: int = RANKED

    @property
    def answering(self) -> str:
        """How an answer is found."""
        if not self.answers:
            return "writing an answer by beam search, as many steps as the longest of its batch"
        closely = min(self.k_test, len(self.answers))
        return f"ranking {len(self.answers):,} answers by their first words, the likeliest {closely:,} in full"

    def choosing(self, k_test: int) -> Vqa:
        """The task that ranks so many answers of a list in full."""
        return replace(self, k_test=k_test)

    def writing(self, tokenizer: Any, answers: Sequence[str]) -> Vqa:
        """The task with the tokenizer that reads a model's words, and the answers to choose from, if any."""
        return replace(self, tokenizer=tokenizer, answers=tuple(answers))

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Make the arguments of the model's forward; the commonest answer is the one that is teacher-forced.

        Returns:
            pixel_values [batch, 3, height, width]; input_ids and attention_mask [batch, tokens] of the
            questions, the first token [ENC]; decoder_input_ids and decoder_attention_mask [batch, tokens] of
            the answers, the first token [DEC], nothing between it and [SEP] where nobody answered; labels
            [batch, tokens], the answers with -100 for padding, if every row has an answer.
        """
        questions, answers = _questions(rows, processor.tokenizer), _answers(rows, processor.tokenizer)
        batch = {
            "pixel_values": pixel_values([row.images[0] for row in rows], processor.image_processor),
            **questions,
            **{f"decoder_{name}": value for name, value in answers.items()},
        }
        if all(row.references for row in rows):
            batch["labels"] = answers["input_ids"].masked_fill(answers["attention_mask"] == 0, IGNORED)
        return batch

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Tokens of each question and of the answer that is teacher-forced, first and last included."""
        texts = {"text": _questions(rows, processor.tokenizer), "decoder": _answers(rows, processor.tokenizer)}
        return {tower: tokens["attention_mask"].sum(1).tolist() for tower, tokens in texts.items()}

    def predictions(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """The answer to each question, in words."""
        if not self.answers:
            return _texts.texts(model.generate_from(output.memory, on_text_run=on_text_run), self.tokenizer)
        listed = {
            name: value.to(output.memory.data.device)
            for name, value in _texts.tokens(self.answers, self.tokenizer, "[DEC]", ANSWER_TOKENS).items()
        }
        best = model.rank(output.memory, listed["input_ids"], listed["attention_mask"], self.k_test, on_text_run)
        return [self.answers[number] for number in best.tolist()]

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """As right as the official evaluation says, 0 to 1: see `metrics.vqa.soft_score`."""
        asked = zip(predictions, rows, strict=False)
        scores = [soft_score(answer, row.references) for answer, row in asked if row.references]
        return TaskResult(predictions, scores, len(predictions) - len(scores))

    def quality(self, scores: Sequence[float]) -> float:
        """VQA accuracy in percent."""
        return 100 * fsum(scores) / len(scores)


def _questions(rows: Sequence[Row], tokenizer: Any) -> dict[str, Tensor]:
    return _texts.tokens([cleaned(row.text) for row in rows], tokenizer, "[ENC]", QUESTION_TOKENS)


def _answers(rows: Sequence[Row], tokenizer: Any) -> dict[str, Tensor]:
    return _texts.tokens([commonest(row.references) for row in rows], tokenizer, "[DEC]", ANSWER_TOKENS)


TASK = Vqa()
