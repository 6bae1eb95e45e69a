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
from madtp_cli.models.blip.towers import PROMPT
from madtp_cli.tasks import TaskResult, _texts
from madtp_cli.tasks._texts import TextKind


@dataclass(frozen=True)
class Caption:
    """Describe an image in a sentence; scored by CIDEr-D, which papers multiply by 100.

    Attributes:
        processor: The model's processor.
        prompt: Begins each caption and takes no part in the loss.
    """

    name = "caption"
    schema = "captions"
    title = "Image captioning (COCO)"
    #: Code for the model card.
    example = (
        'inputs = processor(images=Image.open("image.png"), return_tensors="pt")\n'
        "print(processor.tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))"
    )
    pipeline_tag = "image-to-text"
    metric = "CIDEr"
    unit = "100 x CIDEr-D"
    shares, relative = False, True
    generation_cost_description = "generating a caption by beam search, as many steps as the longest of its batch"

    processor: Any = None
    prompt: str = PROMPT

    @property
    def kind(self) -> TextKind:
        """Captions as BLIP was trained on them."""
        return TextKind("caption", _texts.with_spaces, first="[DEC]", prompt=self.prompt)

    def for_model(self, config: Any, processor: Any, answers: Sequence[str]) -> Caption:
        """Return the task with the prompt and the processor of a model; captions are never chosen from a list."""
        return replace(self, processor=processor, prompt=getattr(config, "prompt", self.prompt))

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return the inputs of a forward pass; the caption in `Row.text` is teacher-forced.

        Returns:
            pixel_values [batch, 3, height, width]; input_ids and attention_mask [batch, tokens]: [DEC], prompt and
            caption; labels [batch, tokens]: the same with -100 for the prompt and for padding, if every row has a
            caption.
        """
        captions = self.kind.encode([row.text for row in rows], processor)
        batch = {
            "pixel_values": pixel_values([row.images[0] for row in rows], processor.image_processor),
            **captions,
        }
        if all(row.text for row in rows):
            labels = captions["input_ids"].masked_fill(captions["attention_mask"] == 0, IGNORED)
            labels[:, : self.kind.encode_prompt(processor).shape[1]] = IGNORED
            batch["labels"] = labels
        return batch

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return the tokens of each caption with the prompt, [DEC] and [SEP]."""
        captions = self.kind.encode([row.text for row in rows], processor)
        return {"decoder": captions["attention_mask"].sum(1).tolist()}

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return all captions: each may be a training target."""
        return {self.kind: [caption for row in rows for caption in row.references or (row.text,)]}

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return a caption for each image, without the prompt."""
        prompt = self.kind.encode_prompt(self.processor).to(output.memory.data.device)
        generated = model.generate_from(output.memory, prompt, on_text_run=on_text_run)
        return _texts.texts(generated[:, prompt.shape[1] :], self.processor.tokenizer)

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


def _with_references(captions: Sequence[str], rows: Sequence[Row]) -> tuple[list[str], list[Sequence[str]]]:
    """Return the captions of the rows that have references, and the references."""
    pairs = [(caption, row.references) for caption, row in zip(captions, rows, strict=False) if row.references]
    return [caption for caption, _ in pairs], [references for _, references in pairs]


TASK = Caption()
