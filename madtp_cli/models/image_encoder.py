"""The image tower alone of models with an image tower and a text tower: an encoder for image search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from madtp_cli.execution.block_trace import TokenTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.models.dual_encoder import DualEncoder, unit
from madtp_cli.models.prunable import DistillationTargets


@dataclass
class ImageOutput(ModelOutput):
    """Output for images.

    The first entry is what transformers' pipelines return.

    Attributes:
        image_embeds: The normalised embeddings, [images, width], in float32.
        pooler_output: The features before normalisation, [images, width], as transformers' image encoders return them.
        trace: Token counts of every block.
        targets: Distillation targets, only in training or with `return_targets=True`.
        memory: The kept image tokens.
    """

    image_embeds: Tensor | None = None
    pooler_output: Tensor | None = None
    trace: TokenTrace | None = None
    targets: DistillationTargets | None = None
    memory: Packed | None = None
    #: The losses of other models, which compare images with texts.
    loss: None = None
    alignment: None = None

    @property
    def image_embedding(self) -> Tensor | None:
        """The name of `image_embeds` in exported files."""
        return self.image_embeds


class ImageEncoder(DualEncoder):
    """An encoder of images without a text tower. Its family's towers come after it among the base classes."""

    TOWERS: ClassVar[tuple[str, ...]] = ("vision",)
    ALL_PAIRS: ClassVar[bool] = False

    def dummy_inputs(self, text_tokens: int) -> dict[str, Tensor]:
        """Return one blank image; there is no text."""
        side = self.config.vision_config.image_size
        return {"pixel_values": torch.zeros(1, 3, side, side)}

    def forward(  # type: ignore[override]
        self, pixel_values: Tensor, labels: Tensor | None = None, *, return_targets: bool = False
    ) -> ImageOutput:
        """Embed images.

        Args:
            pixel_values: [images, 3, height, width].
            labels: Not used: a fine-tune distils the dense model.
            return_targets: Whether to return distillation targets outside training too.
        """
        vision = self.pruner("vision")
        images = self.encode_images(pixel_values, vision)
        states = self.image_states(images)
        features = self.project_images(states)
        embeddings = unit(features)
        targets: DistillationTargets = {
            "state.image": states,
            "embedding.image": embeddings,
            "tokens.vision": self.image_token_targets(images),
        }
        return ImageOutput(
            image_embeds=embeddings,
            pooler_output=features,
            trace={"vision": vision.blocks},
            targets=targets if return_targets or self.training else None,
            memory=images,
        )
