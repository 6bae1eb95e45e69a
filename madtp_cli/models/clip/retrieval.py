"""CLIP for image-text retrieval, on packed tokens. It also classifies images zero-shot and returns features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPVisionModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from madtp_cli.execution import gathering
from madtp_cli.execution.block_pruner import TokenTrace
from madtp_cli.execution.packed import Packed
from madtp_cli.models.clip.towers import MadtpClipConfig, PrunableClip
from madtp_cli.models.prunable import DistillationTargets, EmbeddingOutput, stack_states

#: Maximum logit scale of the contrastive loss. Source: CLIP, arXiv:2103.00020, section 2.5.
MAX_LOGIT_SCALE = 100.0


@dataclass
class ClipOutput(EmbeddingOutput):
    """Output of CLIP.

    `logits` are [images, texts]. transformers' pipelines read them as `logits_per_image` and `logits_per_text`.
    `image_embedding` [images, joint width] and `memory`, the kept image tokens, are those of `embed_images`.
    `text_embedding` [texts, joint width] is that of `embed_texts`.
    """

    @property
    def logits_per_image(self) -> Tensor | None:
        """[images, texts]."""
        return self.logits

    @property
    def logits_per_text(self) -> Tensor | None:
        """[texts, images]."""
        return None if self.logits is None else self.logits.t()


@dataclass
class ClipEmbeddings(ModelOutput):
    """Output of CLIP for images alone or texts alone.

    The first entry is the normalised embeddings, [inputs, joint width], which is what transformers' pipelines return.
    `memory` holds the kept image tokens, and `trace` the token counts of every block.
    """

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    trace: TokenTrace | None = None
    memory: Packed | None = None


class MadtpClipForRetrieval(PrunableClip):
    """CLIP that compares images and texts."""

    TEXT_TOKENS = 77

    #: Whether a method `match` improves the ranking by embeddings. CLIP has only embeddings.
    reranks: ClassVar[bool] = False

    def __init__(self, config: MadtpClipConfig) -> None:
        super().__init__(config)
        self.text_model = CLIPTextModel._from_config(config.text_config)
        self.vision_model = CLIPVisionModel._from_config(config.vision_config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        text_width, bias = config.text_config.hidden_size, config.text_projection_bias
        self.text_projection = nn.Linear(text_width, config.projection_dim, bias=bias)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.prepare()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise parameters as CLIP does. transformers initialises the projections only for its own classes."""
        super()._init_weights(module)
        if module is self:
            for projection in (self.visual_projection, self.text_projection):
                init.normal_(projection.weight, std=projection.in_features**-0.5)
            init.constant_(self.logit_scale, self.config.logit_scale_init_value)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        return_targets: bool = False,
    ) -> ClipOutput | ClipEmbeddings:
        """Compare every image with every text; logits are their scaled similarities, [images, texts].

        Images alone, or texts alone, give only their embeddings.

        Args:
            pixel_values: [images, 3, height, width]; None for texts alone.
            input_ids: [texts, tokens], read up to a text's first end-of-text token; None for images alone.
            attention_mask: [texts, tokens], 0 at padding; None where there is no padding.
            labels: [texts], the number of each text's image, for one text per image; equal numbers match.
            return_targets: Whether to return distillation targets outside training too.
        """
        if pixel_values is None or input_ids is None:
            return self._embeddings(pixel_values, input_ids, attention_mask, with_loss=labels is not None)
        vision, text = self.pruner("vision"), self.pruner("text")
        states: list[Tensor] | None = [] if return_targets or self.training else None
        images = self.encode_images(pixel_values, vision)
        texts = self.encode_text(input_ids, attention_mask, text, states)
        image_states, text_states = self._image_states(images), self._text_states(texts)
        image_embedding = _unit(self.visual_projection(image_states))
        text_embedding = _unit(self.text_projection(text_states))
        logits = self._logits(image_embedding, text_embedding)
        return ClipOutput(
            loss=self._loss(image_embedding, text_embedding, labels) if labels is not None else None,
            logits=logits,
            alignment=self.alignment_loss(vision.pooled, text.pooled),
            targets=self._targets((image_states, text_states), images, texts, states) if states is not None else None,
            trace={"vision": vision.blocks, "text": text.blocks},
            image_embedding=image_embedding,
            text_embedding=text_embedding,
            memory=images,
        )

    def _embeddings(
        self, pixel_values: Tensor | None, input_ids: Tensor | None, attention_mask: Tensor | None, *, with_loss: bool
    ) -> ClipEmbeddings:
        """Return the embeddings of images alone or of texts alone.

        Raises:
            ValueError: There are neither images nor texts, or a loss is requested, which needs both.
        """
        if with_loss:
            raise ValueError("The loss compares images with texts. Give both pixel_values and input_ids with labels.")
        if pixel_values is not None:
            vision = self.pruner("vision")
            images = self.encode_images(pixel_values, vision)
            embeds = _unit(self.visual_projection(self._image_states(images)))
            return ClipEmbeddings(image_embeds=embeds, trace={"vision": vision.blocks}, memory=images)
        if input_ids is None:
            raise ValueError("There is nothing to embed. Give pixel_values, input_ids or both.")
        text = self.pruner("text")
        texts = self.encode_text(input_ids, attention_mask, text)
        embeds = _unit(self.text_projection(self._text_states(texts)))
        return ClipEmbeddings(text_embeds=embeds, trace={"text": text.blocks})

    def embed_images(self, pixel_values: Tensor) -> tuple[Tensor, Packed]:
        """Return the normalised embeddings, [images, joint width] in float32, and the kept image tokens."""
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return _unit(self.visual_projection(self._image_states(images))), images

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the normalised embeddings, [texts, joint width] in float32."""
        texts = self.encode_text(input_ids, attention_mask, self.pruner("text"))
        return _unit(self.text_projection(self._text_states(texts)))

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """As in transformers' CLIPModel: `pooler_output` is [images, joint width], not normalised."""
        images = self.encode_images(pixel_values, self.pruner("vision"))
        return BaseModelOutputWithPooling(pooler_output=self.visual_projection(self._image_states(images)))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """As in transformers' CLIPModel: `pooler_output` is [texts, joint width], not normalised."""
        texts = self.encode_text(input_ids, attention_mask, self.pruner("text"))
        return BaseModelOutputWithPooling(pooler_output=self.text_projection(self._text_states(texts)))

    def classify(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Classify images zero-shot: return the probability of each text, such as "a photo of a dog", for each image.

        The result is [images, texts]; rows sum to one. Source: CLIP, arXiv:2103.00020, section 3.1.
        """
        images, _ = self.embed_images(pixel_values)
        return self._logits(images, self.embed_texts(input_ids, attention_mask)).softmax(-1)

    def _image_states(self, tokens: Packed) -> Tensor:
        return self.vision_model.post_layernorm(tokens.first())

    def _text_states(self, tokens: Packed) -> Tensor:
        return self.text_model.final_layer_norm(tokens.last())

    def _logits(self, images: Tensor, texts: Tensor) -> Tensor:
        """Scaled similarities, always in float32: half precision gives near neighbours in a gallery equal scores."""
        with torch.autocast(images.device.type, enabled=False):
            return self.logit_scale.exp() * (images @ texts.t())

    def _loss(self, images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
        """Contrastive loss of the embeddings, with those of all processes of a training."""
        by_image, by_text = gathering.similarities(self._logits, images, texts)
        same = labels[:, None] == gathering.gather_rows(labels)
        return contrastive_loss(self._limit_scale(by_image), self._limit_scale(by_text), same)

    def _limit_scale(self, logits: Tensor) -> Tensor:
        """Limit the scale of the logits to `MAX_LOGIT_SCALE`. A larger scale keeps its gradient, so it can decrease."""
        return logits * (MAX_LOGIT_SCALE / self.logit_scale.detach().exp()).clamp(max=1)

    def _targets(
        self, read_out: tuple[Tensor, Tensor], images: Packed, texts: Packed, states: list[Tensor]
    ) -> DistillationTargets:
        """Return the distillation targets; `read_out` are the states of the read-out tokens of images and texts."""
        image_states, text_states = read_out
        targets: DistillationTargets = {
            "state.image": image_states,
            "state.text": text_states,
            "embedding.image": _unit(self.visual_projection(image_states)),
            "embedding.text": _unit(self.text_projection(text_states)),
            # Normalised: a few tokens of the raw stream are so large that they would dominate the loss.
            "tokens.vision": images.replace(self.vision_model.post_layernorm(images.data)),
        }
        words = stack_states(states, texts)
        return targets if words is None else {**targets, "words.text": words}


def _unit(features: Tensor) -> Tensor:
    return functional.normalize(features.float(), dim=-1)


def contrastive_loss(by_image: Tensor, by_text: Tensor, same: Tensor) -> Tensor:
    """Return the mean of the image-to-text and text-to-image cross entropy of a batch's similarities.

    Args:
        by_image: Scaled similarities of each image with the texts of all pairs, [pairs, all pairs].
        by_text: Scaled similarities of each text with the images of all pairs, [pairs, all pairs].
        same: Whether two pairs have the same image, bool [pairs, all pairs]; they then match each other.

    Source: CLIP, arXiv:2103.00020. Several matches share the target, as in BLIP, arXiv:2201.12086.
    """
    target = same.float() / same.float().sum(1, keepdim=True)
    return (functional.cross_entropy(by_image, target) + functional.cross_entropy(by_text, target)) / 2


MODEL = MadtpClipForRetrieval
