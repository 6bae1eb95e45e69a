"""Zero-shot classification: find the class of an image among names that are given as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import Any

import torch
from torch import Tensor

from madtp_cli.data.class_files import PLACE
from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.tasks import TaskResult
from madtp_cli.tasks._texts import TextKind

#: Texts of classes. They are not cleaned: the tokenizer does what the model was trained with.
PROMPT = TextKind("classification")
#: Source: CLIP, arXiv:2103.00020, section 3.1.4.
TEMPLATES = ("a photo of a {}.",)
#: Classes that count as found for the second figure.
BEST = 5
#: Class texts that are encoded at once.
TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class Classification:
    """Find the class of an image among the texts of all classes.

    The texts of a class are its name in each template; its embedding is the mean of their normalised embeddings.

    Attributes:
        processor: The model's processor.
        classes: Names of the classes, in the order of the labels.
        templates: Texts in which {} stands for the name of a class.
    """

    name = "classification"
    schema = "classes"
    title = "Zero-shot image classification"
    #: Code for the model card.
    example = (
        'inputs = processor(images=Image.open("image.png"), text=["a photo of a dog.", "a photo of a cat."],\n'
        '                   padding="max_length", truncation=True, return_tensors="pt")\n'
        'texts = inputs["input_ids"], inputs.get("attention_mask")\n'
        'print(model.classify(inputs["pixel_values"], *texts))  # the probability of each text'
    )
    pipeline_tag = "zero-shot-image-classification"
    metric = "top-1 accuracy"
    unit = "percent"
    shares, relative = True, False

    processor: Any = None
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = TEMPLATES

    @property
    def generation_cost_description(self) -> str:
        """What is run once for all images."""
        return f"encoding the texts of the {len(self.classes):,} classes, once for all images"

    def for_model(self, config: Any, processor: Any, answers: Sequence[str]) -> Classification:
        """Return the task with the processor of a model and the names of the classes."""
        return replace(self, processor=processor, classes=tuple(answers))

    def with_templates(self, templates: Sequence[str]) -> Classification:
        """Return the task with other templates."""
        return replace(self, templates=tuple(templates))

    def prepare(self, model: Any) -> None:
        """Give a model the embeddings of the classes, whose logits are distilled."""
        model.class_embeddings = self.class_embeddings(model)

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return pixel_values [batch, 3, height, width]. Training uses no labels: it distils the dense model."""
        return {"pixel_values": pixel_values([row.images[0] for row in rows], processor.image_processor)}

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return one image per row; no text is part of a sample."""
        return {"images": [1] * len(rows)}

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return the texts of all classes, which belong to no row."""
        return {PROMPT: [] if rows else self.prompts()}

    def prompts(self) -> list[str]:
        """Return the texts of all classes, those of the first class first."""
        return [template.replace(PLACE, name) for name in self.classes for template in self.templates]

    def class_embeddings(self, model: Any, on_text_run: OnTextRun = ignore_text_run) -> Tensor:
        """Return the normalised embedding of each class, [classes, width], in float32."""
        prompts, device = self.prompts(), next(model.parameters()).device
        parts = []
        for start in range(0, len(prompts), TEXTS_AT_ONCE):
            encoded = PROMPT.encode(prompts[start : start + TEXTS_AT_ONCE], self.processor)
            encoded = {name: value.to(device) for name, value in encoded.items()}
            with torch.no_grad():
                parts.append(model.embed_class_texts(**encoded, on_text_run=on_text_run))
        by_class = torch.cat(parts).unflatten(0, (len(self.classes), len(self.templates)))
        mean: Tensor = torch.nn.functional.normalize(by_class.mean(1), dim=-1)
        return mean

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return the normalised embedding of each image, on the CPU."""
        return list(output.image_embeds.float().cpu())

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """Return the number of the most similar class of each image; the score is 1 if it is the right one."""
        with torch.autocast("cpu", enabled=False):  # half precision has too few bits to rank
            similar = torch.stack(predictions) @ self.class_embeddings(model, on_text_run).cpu().T
        best = similar.topk(min(BEST, similar.shape[1]), 1).indices.tolist()
        answers = [found[0] for found in best]
        labels = [row.label for row in rows]
        known = [(found, label) for found, label in zip(best, labels, strict=False) if label is not None]
        scores = [float(found[0] == label) for found, label in known]
        within = [float(label in found) for found, label in known]
        parts = {f"top-{BEST} accuracy": 100 * fsum(within) / len(within)} if within else {}
        by_class: dict[str, list[float]] = {}
        for (_, label), score in zip(known, scores, strict=True):
            by_class.setdefault(self.classes[label], []).append(score)
        return TaskResult(answers, scores, len(predictions) - len(scores), parts, by_class=by_class)

    def quality(self, scores: Sequence[float]) -> float:
        """Return the percentage of images whose most similar class is the right one."""
        return 100 * fsum(scores) / len(scores)

    def describe(self, prediction: Any, texts: Sequence[str]) -> str:
        """Return the name of a class."""
        return self.classes[prediction]


TASK = Classification()
