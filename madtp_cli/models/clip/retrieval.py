"""CLIP on packed tokens: images and texts in one space, for retrieval, zero-shot classes, or as features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPVisionModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from madtp_cli.execution.packed import Packed
from madtp_cli.models.clip.towers import MadtpClipConfig, PrunableClip
from madtp_cli.models.prunable import DistillationTargets, PrunedOutput, layered

#: The contrastive loss multiplies similarities by no more; Source: CLIP, arXiv:2103.00020, section 2.5.
LARGEST_SCALE = 100.0


@dataclass
class ClipOutput(PrunedOutput):
    """`logits` are [images, texts]; also under transformers' names, which its pipelines ask for.

    `image_embedding` [images, joint width] and `memory`, the image tokens that were left, are those of `embed_images`,
    `text_embedding` [texts, joint width] is that of `embed_texts`.
    """

    image_embedding: Tensor | None = None
    text_embedding: Tensor | None = None
    memory: Packed | None = None

    @property
    def logits_per_image(self) -> Tensor | None:
        return self.logits

    @property
    def logits_per_text(self) -> Tensor | None:
        return None if self.logits is None else self.logits.t()


class MadtpClipForRetrieval(PrunableClip):
    """CLIP that says how well images and texts match; prunes where its config has `madtp`."""

    TEXT_TOKENS = 77

    #: The similarity of embeddings is the score; nothing looks at a pair again.
    reranks: ClassVar[bool] = False

    def __init__(self, config: MadtpClipConfig) -> None:
        super().__init__(config)
        self.text_model = CLIPTextModel._from_config(config.text_config)
        self.vision_model = CLIPVisionModel._from_config(config.vision_config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.prepare()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As CLIP's, which knows its projections by the class of their owner."""
        super()._init_weights(module)
        if module is self:
            for projection in (self.visual_projection, self.text_projection):
                init.normal_(projection.weight, std=projection.in_features**-0.5)
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> ClipOutput:
        """Match images and texts; logits are their scaled similarities, [images, texts].

        Args:
            pixel_values: [images, 3, height, width].
            input_ids: [texts, tokens]; a text is read up to its first end-of-text token.
            attention_mask: [texts, tokens], 0 at padding; None where there is none.
            labels: [texts], of as many texts as images: a number of the image that each text belongs to.
                Pairs of one number match; all others are each other's negatives.
            teach: Also give the lesson, as in training.
        """
        vision, text = self.pruner("vision"), self.pruner("text")
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        words = self.encode_text(input_ids, attention_mask, text, states)
        seen, said = self._image_states(images), self._text_states(words)
        embedding, embedded = _unit(self.visual_projection(seen)), _unit(self.text_projection(said))
        logits = self._similar(embedding, embedded)
        return ClipOutput(
            loss=contrastive_loss(self._held(logits), labels) if labels is not None else None,
            logits=logits,
            alignment=self.aligned(vision.pooled, text.pooled),
            targets=self._lesson(seen, said, images, words, states) if states is not None else None,
            trace={"vision": vision.blocks, "text": text.blocks},
            image_embedding=embedding,
            text_embedding=embedded,
            memory=images,
        )

    def embed_images(self, pixel_values: Tensor) -> tuple[Tensor, Packed]:
        """Embeddings of length one, [images, joint width] in float32, and the image tokens that were left."""
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return _unit(self.visual_projection(self._image_states(images))), images

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Embeddings of length one, [texts, joint width] in float32."""
        words = self.encode_text(input_ids, attention_mask, self.pruner("text"))
        return _unit(self.text_projection(self._text_states(words)))

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """As transformers' CLIPModel: `pooler_output` is [images, joint width], of any length; needs no text."""
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return BaseModelOutputWithPooling(pooler_output=self.visual_projection(self._image_states(images)))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """As transformers' CLIPModel: `pooler_output` is [texts, joint width], of any length; needs no image."""
        words = self.encode_text(input_ids, attention_mask, self.pruner("text"))
        return BaseModelOutputWithPooling(pooler_output=self.text_projection(self._text_states(words)))

    def classify(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Zero-shot classes: the probability of each text, such as "a photo of a dog", for each image.

        Rows of [images, texts] sum to one. Source: CLIP, arXiv:2103.00020, section 3.1.
        """
        images, _ = self.embed_images(pixel_values)
        return self._similar(images, self.embed_texts(input_ids, attention_mask)).softmax(-1)

    def _image_states(self, tokens: Packed) -> Tensor:
        return self.vision_model.post_layernorm(tokens.first())

    def _text_states(self, tokens: Packed) -> Tensor:
        return self.text_model.final_layer_norm(tokens.last())

    def _similar(self, images: Tensor, texts: Tensor) -> Tensor:
        """In float32 always: half precision cannot tell a gallery's near neighbours apart."""
        with torch.autocast(images.device.type, enabled=False):
            return self.logit_scale.exp() * (images @ texts.t())

    def _held(self, logits: Tensor) -> Tensor:
        """Logits as if the scale were at most `LARGEST_SCALE`; a larger one still learns, else it could not fall."""
        return logits * (LARGEST_SCALE / self.logit_scale.detach().exp()).clamp(max=1)

    def _lesson(
        self, seen: Tensor, said: Tensor, images: Packed, words: Packed, states: list[Tensor]
    ) -> DistillationTargets:
        targets: DistillationTargets = {
            "state.image": seen,
            "state.text": said,
            "embedding.image": _unit(self.visual_projection(seen)),
            "embedding.text": _unit(self.text_projection(said)),
            # Normalised, since a few tokens of the bare stream are so large that only they would be learned.
            "tokens.vision": images.replace(self.vision_model.post_layernorm(images.data)),
        }
        said_by_layer = layered(states, words)
        return targets if said_by_layer is None else {**targets, "words.text": said_by_layer}


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.float(), dim=-1)


def contrastive_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of a batch's similarities, images to texts and texts to images, their mean.

    Args:
        logits: Scaled similarities of as many images as texts, [pairs, pairs].
        labels: [pairs], a number of each pair's image; all pairs of one image match, none is a negative
            of another.

    Source: CLIP, arXiv:2103.00020; several matches share the target, as in BLIP, arXiv:2201.12086.
    """
    matches = (labels[:, None] == labels).float()
    target = matches / matches.sum(1, keepdim=True)
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.t(), target)) / 2


MODEL = MadtpClipForRetrieval
