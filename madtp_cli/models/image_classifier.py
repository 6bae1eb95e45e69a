"""Zero-shot classification by models with an image tower and a text tower: only the image tower runs for an image."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from madtp_cli.execution.block_pruner import BlockPruner
from madtp_cli.execution.packed import Packed
from madtp_cli.execution.text_runs import OnTextRun, TextRun, ignore_text_run
from madtp_cli.models.dual_encoder import DualEncoder, DualOutput, SingleEmbeddings, unit
from madtp_cli.models.prunable import DistillationTargets


class ImageClassifier(DualEncoder):
    """Adds the forward of images alone, with distillation targets; the text tower stays dense.

    It comes before the family's model for retrieval, which has the towers and the same tensors.
    """

    TOWERS: ClassVar[tuple[str, ...]] = ("vision",)

    #: Normalised embedding of each class, [classes, width]; None while no task has prepared the model.
    class_embeddings: Tensor | None

    def prepare(self) -> None:
        """Set up pruning. The embeddings of the classes are no part of the checkpoint."""
        super().prepare()
        self.register_buffer("class_embeddings", None, persistent=False)

    def pruner(self, tower: str) -> BlockPruner:
        """Return the object that prunes the image tower; for the text tower one that only records."""
        return super().pruner(tower) if tower in self.TOWERS else self.unpruned(tower)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> DualOutput | SingleEmbeddings:
        """Embed images; with texts too, compare every image with every text, as the model for retrieval.

        The distillation targets have `logits.classes`, [images, classes], if the model has the embeddings of classes. A
        fine-tune distils the dense model and uses no labels, so the model still classifies other classes.

        Args:
            pixel_values: [images, 3, height, width].
            input_ids: [texts, tokens]; None for images alone.
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            labels: Not used for images alone.
            return_targets: Whether to return distillation targets outside training too.
        """
        if pixel_values is None or input_ids is not None or not (return_targets or self.training):
            labels = None if input_ids is None else labels
            return super().forward(pixel_values, input_ids, attention_mask, labels, return_targets=return_targets)
        vision = self.pruner("vision")
        images = self.encode_images(pixel_values, vision)
        states = self.image_states(images)
        embedding = unit(self.project_images(states))
        return DualOutput(
            targets=self._image_targets(states, embedding, images),
            trace={"vision": vision.blocks},
            image_embedding=embedding,
            memory=images,
        )

    def _image_targets(self, states: Tensor, embedding: Tensor, images: Packed) -> DistillationTargets:
        targets: DistillationTargets = {
            "state.image": states,
            "embedding.image": embedding,
            "tokens.vision": self.image_token_targets(images),
        }
        if self.class_embeddings is not None:
            targets["logits.classes"] = self._logits(embedding, self.class_embeddings)
        return targets

    def embed_class_texts(
        self, input_ids: Tensor, attention_mask: Tensor | None, on_text_run: OnTextRun = ignore_text_run
    ) -> Tensor:
        """Return the normalised embeddings of the texts of classes, [texts, joint width] in float32.

        Args:
            input_ids: [texts, tokens].
            attention_mask: [texts, tokens], 0 at padding.
            on_text_run: Called with the run of the text tower.
        """
        text = self.pruner("text")
        texts = self.encode_text(input_ids, attention_mask, text)
        on_text_run(TextRun([0], [len(input_ids)], text.blocks, len(input_ids)))
        return unit(self.project_texts(self.text_states(texts)))
