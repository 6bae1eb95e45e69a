"""Image embedding: an image encoder alone, whose embeddings are compared with those of the dense encoder."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

import torch
from torch import Tensor

from madtp_cli.data.dataset import Row
from madtp_cli.data.pixels import pixel_values
from madtp_cli.execution.text_runs import OnTextRun, ignore_text_run
from madtp_cli.metrics import nearest_images
from madtp_cli.tasks import TaskResult
from madtp_cli.tasks._texts import TextKind


class Embedding:
    """Embed images; the score of an image is the cosine of its embedding to the dense model's."""

    name = "embedding"
    schema = "images"
    title = "Image embedding"
    pipeline_tag = "image-feature-extraction"
    metric = "100 x cosine to the dense embedding"
    unit = "100 x cosine"
    shares, relative = False, False
    example = (
        'inputs = processor(images=Image.open("image.jpg"), return_tensors="pt")\n'
        "print(model(**inputs).image_embeds)  # normalised"
    )

    generation_cost_description = ""

    def collate(self, rows: Sequence[Row], processor: Any) -> dict[str, Tensor]:
        """Return pixel_values [batch, 3, height, width]."""
        return {"pixel_values": pixel_values([row.images[0] for row in rows], processor)}

    def text_lengths(self, rows: Sequence[Row], processor: Any) -> dict[str, list[int]]:
        """Return one image per row; there is no text."""
        return {"images": [1] * len(rows)}

    def texts(self, rows: Sequence[Row]) -> dict[TextKind, list[str]]:
        """Return nothing, because there is no text."""
        return {}

    def predict(
        self, model: Any, output: Any, batch: dict[str, Tensor], on_text_run: OnTextRun = ignore_text_run
    ) -> list[Any]:
        """Return the normalised embedding of each image, on the CPU."""
        return list(output.image_embeds.float().cpu())

    def score(
        self, model: Any, predictions: list[Any], rows: Sequence[Row], on_text_run: OnTextRun = ignore_text_run
    ) -> TaskResult:
        """Return the number of the most similar other image of each image; the scores follow in `compare_with`."""
        embeddings = torch.stack(predictions).numpy()
        nearest = nearest_images.neighbours(embeddings, embeddings, 1)
        answers = [found[0] if found else None for found in nearest.tolist()]
        return TaskResult(answers, [], embeddings=embeddings)

    def compare_with(self, dense: TaskResult, result: TaskResult) -> list[float]:
        """Return the cosine of each embedding to that of the dense model."""
        cosines = (dense.embeddings.astype(float) * result.embeddings).sum(-1)
        scores: list[float] = cosines.clip(-1, 1).tolist()
        return scores

    def quality(self, scores: Sequence[float]) -> float:
        """Return 100 times the mean cosine."""
        return 100 * fsum(scores) / len(scores)


TASK = Embedding()
