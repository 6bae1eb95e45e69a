"""Image captioning: describe an image in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from torch import Tensor

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.metrics.captioning import bleu4, cider_d
from madtp_cli.models.blip.decoding import IGNORED
from madtp_cli.tasks import TaskResult, _texts

#: BLIP's prompt, which begins each caption and takes no part in the loss.
PROMPT = "a picture of"
#: Largest number of words of a caption, and of tokens with the prompt, [DEC] and [SEP], as BLIP was trained.
MOST_WORDS, MOST_TOKENS = 30, 40


def cleaned(caption: str) -> str:
    """Return a caption as BLIP was trained on it: lower case, without some characters, at most 30 words.

    >>> cleaned('A "Red" ring; two (or more)!')
    'a red ring two or more'
    """
    return _texts.cleaned(caption, MOST_WORDS)


@dataclass(frozen=True)
class Caption:
    """Describe an image in a sentence; scored by CIDEr-D, which papers multiply by 100."""

    name = "caption"
    schema = "captions"
    title = "Image captioning (COCO)"
    pipeline_tag = "image-to-text"
    metric = "CIDEr"
    unit = "100 x CIDEr-D"
    shares, relative = False, True
    generation_cost_description = "generating a caption by beam search, as many steps as the longest of its batch"

    tokenizer: Any = None

    def with_tokenizer(self, tokenizer: Any, answers: Sequence[str]) -> Caption:
        """Return the task with the tokenizer of the model; captions are never chosen from a list."""
        return replace(self, tokenizer=tokenizer)

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return the inputs of a forward pass; the caption in `Row.text` is teacher-forced.

        Returns:
            pixel_values [batch, 3, height, width]; input_ids and attention_mask [batch, tokens]: [DEC], prompt and
            caption; labels [batch, tokens]: the same with -100 for the prompt and for padding, if every row has a
            caption.
        """
        captions = _captions(rows, processor.tokenizer)
        batch = {
            "pixel_values": pixel_values([row.images[0] for row in rows], processor.image_processor),
            **captions,
        }
        if all(row.text for row in rows):
            labels = captions["input_ids"].masked_fill(captions["attention_mask"] == 0, IGNORED)
            labels[:, : _prompt(processor.tokenizer).shape[1]] = IGNORED
            batch["labels"] = labels
        return batch

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of each caption with the prompt, [DEC] and [SEP]."""
        return {"decoder": _captions(rows, processor.tokenizer)["attention_mask"].sum(1).tolist()}

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return a caption for each image, without the prompt."""
        prompt = _prompt(self.tokenizer).to(output.memory.data.device)
        generated = model.generate_from(output.memory, prompt, on_text_run=on_text_run)
        return _texts.texts(generated[:, prompt.shape[1] :], self.tokenizer)

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """Return the CIDEr-D of each caption, 0 to 10, against the references of all rows."""
        captions, references = _with_references(predictions, rows)
        parts = {"BLEU-4": 100 * bleu4(captions, references)} if captions else {}
        return TaskResult(predictions, cider_d(captions, references), len(predictions) - len(captions), parts)

    def quality(self, scores: Sequence[float]) -> float:
        """Return CIDEr as papers print it."""
        return 100 * fsum(scores) / len(scores)


def _captions(rows: Sequence[Row], tokenizer: Any) -> dict[str, Tensor]:
    return _texts.tokens([f"{PROMPT} {cleaned(row.text)}" for row in rows], tokenizer, "[DEC]", MOST_TOKENS)


def _prompt(tokenizer: Any) -> Tensor:
    """Return [DEC] and the prompt, [1, tokens]."""
    return _texts.tokens([PROMPT], tokenizer, "[DEC]", MOST_TOKENS)["input_ids"][:, :-1]


def _with_references(captions: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[Sequence[str]]]:
    """Return the captions of the rows that have references, and the references."""
    pairs = [(caption, row.references) for caption, row in zip(captions, rows, strict=False) if row.references]
    return [caption for caption, _ in pairs], [references for _, references in pairs]


TASK = Caption()
